//! TLS of a connection's own: private authorities, versions, names, and certificates that clients show.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use linkspan_model::SecretBytes;
use linkspan_model::tls::{ClientCertificate, TlsSpec};
use linkspan_outbound::{
    Credentials, Exchange, Outbound, Reached, Roots, SendError, SendOptions, Transport, TransportSettings,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::upstream::{Upstream, answer, client_with_names, get, read_request, write};

// See `tls`. Of the clients' authority alice and bob, of the strangers' mallory; each valid until 2126.
const ROOT: &[u8] = include_bytes!("certificates/root.der");
const LEAF: &[u8] = include_bytes!("certificates/leaf.der");
const LEAF_KEY: &[u8] = include_bytes!("certificates/leaf-key.der");
const CLIENTS: &str = include_str!("certificates/clients.pem");
const STRANGERS: &str = include_str!("certificates/strangers.pem");
const ALICE: (&str, &str) = (include_str!("certificates/alice.pem"), include_str!("certificates/alice-key.pem"));
const BOB: (&str, &str) = (include_str!("certificates/bob.pem"), include_str!("certificates/bob-key.pem"));
const MALLORY: (&str, &str) = (include_str!("certificates/mallory.pem"), include_str!("certificates/mallory-key.pem"));

static TLS_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn root_pem() -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(ROOT))
}

fn tls(spec: Value) -> TlsSpec {
    let spec: TlsSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(spec.faults(), []);
    spec
}

fn acceptor(asks: bool, versions: &[&'static SupportedProtocolVersion]) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = if asks {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CLIENTS.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(LEAF_KEY));
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![CertificateDer::from(LEAF)], key).unwrap()))
}

/// A server that answers with the number of the connection and who is at its other end.
async fn serving(asks: bool, versions: &'static [&'static SupportedProtocolVersion]) -> Upstream {
    let acceptor = acceptor(asks, versions);
    let connections = Arc::new(AtomicUsize::new(0));
    Upstream::raw(move |stream| {
        let (acceptor, connections) = (acceptor.clone(), Arc::clone(&connections));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let n = connections.fetch_add(1, Ordering::SeqCst);
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
            let who = [("alice", ALICE.0), ("bob", BOB.0)]
                .into_iter()
                .find_map(|(name, pem)| (shown == CertificateDer::from_pem_slice(pem.as_bytes()).ok()).then_some(name));
            while read_request(&mut stream).await.is_some() {
                write(&mut stream, &answer("200 OK", "", &format!("{n} {}", who.unwrap_or("nobody")))).await;
            }
        }
    })
    .await
}

fn system() -> Outbound {
    client_with_names(&["127.0.0.1"], Roots::system())
}

fn identity((certificate, key): (&str, &str)) -> (ClientCertificate, SecretBytes) {
    let key_of = serde_json::from_value(json!({"secret": "key"})).unwrap();
    (ClientCertificate { certificate: certificate.to_owned(), key: key_of }, SecretBytes::new(key))
}

fn way(client: &Outbound, spec: &TlsSpec, shown: Option<(&str, &str)>) -> Result<Transport, String> {
    let shown = shown.map(identity);
    let client_certificate = shown.as_ref().map(|(certificate, key)| (certificate, key));
    client.transport(&TransportSettings { tls: Some(spec), client_certificate, proxy: None })
}

async fn send(client: &Outbound, way: Option<&Transport>, url: &str) -> Result<Exchange, SendError> {
    let options = SendOptions { transport: way.cloned(), ..SendOptions::default() };
    client.send(get(url), &Credentials::none(), &options).await.map_err(|failed| failed.error)
}

fn text(exchange: &Exchange) -> String {
    String::from_utf8_lossy(&exchange.body).into_owned()
}

#[tokio::test]
async fn private_authorities_are_trusted_by_those_who_name_them() {
    let upstream = serving(false, rustls::DEFAULT_VERSIONS).await;
    let url = format!("https://upstream.test:{}/", upstream.address.port());
    let client = system();
    let named = way(&client, &tls(json!({"authorities": root_pem()})), None).unwrap();
    assert_eq!(text(&send(&client, Some(&named), &url).await.unwrap()), "0 nobody");
    let only = way(&client, &tls(json!({"authorities": root_pem(), "only_these": true})), None).unwrap();
    assert_eq!(text(&send(&client, Some(&only), &url).await.unwrap()), "1 nobody");

    let error = send(&client, None, &url).await.unwrap_err();
    assert_eq!((error.code(), error.reached()), ("outbound.tls", Reached::No));
    assert!(error.description().contains("of no authority that is trusted here"), "{error}");
    let trusting = client_with_names(&["127.0.0.1"], Roots::with_extra([ROOT.to_vec()]));
    let others = way(&trusting, &tls(json!({"authorities": STRANGERS})), None).unwrap();
    assert!(send(&trusting, Some(&others), &url).await.is_ok(), "besides what is trusted anyway");
    let only_others = way(&trusting, &tls(json!({"authorities": STRANGERS, "only_these": true})), None).unwrap();
    assert_eq!(send(&trusting, Some(&only_others), &url).await.unwrap_err().code(), "outbound.tls");
}

#[tokio::test]
async fn the_name_and_the_version_can_be_said() {
    let upstream = serving(false, TLS_1_2).await;
    let url = format!("https://other.test:{}/", upstream.address.port());
    let client = system();
    let named = |more: Value| {
        let mut spec = json!({"authorities": root_pem()});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        way(&client, &tls(spec), None).unwrap()
    };
    let error = send(&client, Some(&named(json!({}))), &url).await.unwrap_err();
    assert!(error.description().contains("its certificate is not accepted: it is for another name"), "{error}");
    let sent = send(&client, Some(&named(json!({"server_name": "upstream.test"}))), &url).await;
    assert_eq!(sent.unwrap().status, 200);
    let newer = named(json!({"server_name": "upstream.test", "min_version": "1.3"}));
    let error = send(&client, Some(&newer), &url).await.unwrap_err();
    assert_eq!((error.code(), error.reached()), ("outbound.tls", Reached::No), "{error}");
}

#[tokio::test]
async fn what_does_not_speak_tls_is_named() {
    let upstream = Upstream::raw(|mut stream| async move {
        write(&mut stream, &answer("400 Bad Request", "", "")).await;
        drop(read_request(&mut stream).await);
    })
    .await;
    let error = send(&system(), None, &format!("https://upstream.test:{}/", upstream.address.port())).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), "outbound.tls");
    assert!(error.description().contains("what answers there does not speak TLS"), "{error}");
}

#[tokio::test]
async fn clients_show_their_own_certificates_on_connections_of_their_own() {
    for versions in [TLS_1_2, TLS_1_3] {
        let upstream = serving(true, versions).await;
        let url = format!("https://upstream.test:{}/", upstream.address.port());
        let client = system();
        let spec = tls(json!({"authorities": root_pem()}));
        let (alice, bob) = (way(&client, &spec, Some(ALICE)).unwrap(), way(&client, &spec, Some(BOB)).unwrap());
        assert_ne!(alice, bob);
        for (way, wanted) in [(&alice, "0 alice"), (&bob, "1 bob"), (&alice, "0 alice"), (&bob, "1 bob")] {
            assert_eq!(text(&send(&client, Some(way), &url).await.unwrap()), wanted);
        }
        // Who asks for the same gets the same, connections included.
        let again = way(&client, &spec, Some(ALICE)).unwrap();
        assert_eq!(again, alice);
        assert_eq!(text(&send(&client, Some(&again), &url).await.unwrap()), "0 alice");
    }
}

#[tokio::test]
async fn a_certificate_that_a_server_does_not_take_is_named() {
    for versions in [TLS_1_2, TLS_1_3] {
        let upstream = serving(true, versions).await;
        let url = format!("https://upstream.test:{}/", upstream.address.port());
        let client = system();
        let spec = tls(json!({"authorities": root_pem()}));
        for (shown, words) in [
            (None, "wants a client certificate"),
            (Some(MALLORY), "the server does not know the authority of our client certificate"),
        ] {
            let way = way(&client, &spec, shown).unwrap();
            // Whether its word or its end comes first is chance.
            for _ in 0..50 {
                let error = send(&client, Some(&way), &url).await.unwrap_err();
                assert_eq!((error.code(), error.reached()), ("outbound.tls", Reached::No), "{error}");
                assert!(error.description().contains(words), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_is_named_and_not_shown() {
    let client = system();
    let spec = tls(json!({}));
    let error = way(&client, &spec, Some((ALICE.0, BOB.1))).unwrap_err();
    assert!(error.contains("it is not the key of the certificate (CN=alice)"), "{error}");
    let error = way(&client, &spec, Some((ALICE.0, "hunter2"))).unwrap_err();
    assert!(error.contains("no private key in PEM") && !error.contains("hunter2"), "{error}");
}
