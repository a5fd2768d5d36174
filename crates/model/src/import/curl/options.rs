//! curl's options: which of them take a value, and which say nothing of the request.

/// Options that take a value.
pub(super) fn takes_value(name: &str) -> bool {
    // All of curl's own: the value of one that is left out must not be taken for a URL. The text behind `--expand-` is
    // the name of another.
    let name = name.strip_prefix("expand-").unwrap_or(name);
    matches!(
        name,
        "abstract-unix-socket"
            | "create-file-mode"
            | "delegation"
            | "dns-interface"
            | "dns-ipv4-addr"
            | "dns-ipv6-addr"
            | "ech"
            | "egd-file"
            | "etag-compare"
            | "etag-save"
            | "ftp-account"
            | "ftp-alternative-to-user"
            | "ftp-method"
            | "ftp-port"
            | "ftp-ssl-ccc-mode"
            | "haproxy-clientip"
            | "hostpubmd5"
            | "hostpubsha256"
            | "ip-tos"
            | "ipfs-gateway"
            | "keepalive-cnt"
            | "knownhosts"
            | "krb"
            | "libcurl"
            | "login-options"
            | "mail-auth"
            | "mail-from"
            | "mail-rcpt"
            | "parallel-max"
            | "parallel-max-host"
            | "proto-default"
            | "proxy-cacert"
            | "proxy-capath"
            | "proxy-cert"
            | "proxy-cert-type"
            | "proxy-ciphers"
            | "proxy-crlfile"
            | "proxy-header"
            | "proxy-key"
            | "proxy-key-type"
            | "proxy-pass"
            | "proxy-pinnedpubkey"
            | "proxy-service-name"
            | "proxy-tls13-ciphers"
            | "proxy-tlsauthtype"
            | "proxy-tlspassword"
            | "proxy-tlsuser"
            | "proxy1.0"
            | "pubkey"
            | "quote"
            | "random-file"
            | "sasl-authzid"
            | "sigalgs"
            | "socks4"
            | "socks4a"
            | "socks5-gssapi-service"
            | "telnet-option"
            | "tftp-blksize"
            | "tlsauthtype"
            | "tlspassword"
            | "tlsuser"
            | "trace-config"
            | "upload-flags"
            | "url"
            | "vlan-priority"
            | "request"
            | "header"
            | "user-agent"
            | "referer"
            | "range"
            | "cookie"
            | "data"
            | "data-ascii"
            | "data-binary"
            | "data-raw"
            | "data-urlencode"
            | "json"
            | "form"
            | "form-string"
            | "url-query"
            | "upload-file"
            | "user"
            | "aws-sigv4"
            | "oauth2-bearer"
            | "max-redirs"
            | "max-time"
            | "proxy"
            | "proxy-user"
            | "preproxy"
            | "socks5"
            | "socks5-hostname"
            | "cert"
            | "key"
            | "cacert"
            | "capath"
            | "cert-type"
            | "key-type"
            | "pass"
            | "resolve"
            | "connect-to"
            | "unix-socket"
            | "interface"
            | "config"
            | "request-target"
            | "variable"
            | "proto"
            | "output"
            | "write-out"
            | "cookie-jar"
            | "dump-header"
            | "connect-timeout"
            | "retry"
            | "retry-delay"
            | "retry-max-time"
            | "limit-rate"
            | "max-filesize"
            | "noproxy"
            | "trace"
            | "trace-ascii"
            | "stderr"
            | "ciphers"
            | "tls13-ciphers"
            | "tls-max"
            | "speed-limit"
            | "speed-time"
            | "time-cond"
            | "dns-servers"
            | "keepalive-time"
            | "local-port"
            | "output-dir"
            | "engine"
            | "proto-redir"
            | "expect100-timeout"
            | "continue-at"
            | "netrc-file"
            | "service-name"
            | "doh-url"
            | "happy-eyeballs-timeout-ms"
            | "alt-svc"
            | "hsts"
            | "rate"
            | "crlfile"
            | "pinnedpubkey"
            | "curves"
    )
}

/// The long name of a short option.
pub(super) fn long_name(letter: char) -> Option<&'static str> {
    Some(match letter {
        'X' => "request",
        'H' => "header",
        'd' => "data",
        'F' => "form",
        'u' => "user",
        'G' => "get",
        'I' => "head",
        'b' => "cookie",
        'A' => "user-agent",
        'e' => "referer",
        'k' => "insecure",
        'L' => "location",
        'm' => "max-time",
        'x' => "proxy",
        'U' => "proxy-user",
        'P' => "ftp-port",
        'Q' => "quote",
        't' => "telnet-option",
        'T' => "upload-file",
        'r' => "range",
        'E' => "cert",
        'K' => "config",
        'n' => "netrc",
        'c' => "cookie-jar",
        'C' => "continue-at",
        'D' => "dump-header",
        'o' => "output",
        'w' => "write-out",
        'y' => "speed-time",
        'Y' => "speed-limit",
        'z' => "time-cond",
        's' => "silent",
        'S' => "show-error",
        'v' => "verbose",
        'i' => "include",
        'f' => "fail",
        'g' => "globoff",
        'N' => "no-buffer",
        'O' => "remote-name",
        'J' => "remote-header-name",
        'R' => "remote-time",
        'q' => "disable",
        ':' => "next",
        'Z' => "parallel",
        '#' => "progress-bar",
        '0' => "http1.0",
        '1' => "tlsv1",
        '2' => "sslv2",
        '3' => "sslv3",
        '4' => "ipv4",
        '6' => "ipv6",
        'j' => "junk-session-cookies",
        'a' => "append",
        'l' => "list-only",
        'p' => "proxytunnel",
        'B' => "use-ascii",
        _ => return None,
    })
}

/// Options about what is done with the answer, or about what Linkspan decides by itself.
pub(super) fn is_about_output(name: &str) -> bool {
    let name = name.strip_prefix("no-").unwrap_or(name);
    takes_value(name)
        || name.starts_with("http")
        || name.starts_with("tls")
        || name.starts_with("ssl")
        || name.starts_with("retry")
        || name.starts_with("progress")
        || matches!(
            name,
            "silent"
                | "show-error"
                | "verbose"
                | "include"
                | "show-headers"
                | "fail"
                | "fail-with-body"
                | "fail-early"
                | "globoff"
                | "buffer"
                | "remote-name"
                | "remote-name-all"
                | "remote-header-name"
                | "remote-time"
                | "disable"
                | "parallel"
                | "ipv4"
                | "ipv6"
                | "compressed"
                | "compressed-ssh"
                | "junk-session-cookies"
                | "append"
                | "list-only"
                | "use-ascii"
                | "path-as-is"
                | "keepalive"
                | "tcp-nodelay"
                | "tcp-fastopen"
                | "styled-output"
                | "create-dirs"
                | "trace-time"
                | "raw"
                | "alpn"
                | "npn"
                | "sessionid"
                | "post301"
                | "post302"
                | "post303"
                | "clobber"
                | "basic"
                | "tr-encoding"
                | "suppress-connect-headers"
                | "xattr"
        )
}
