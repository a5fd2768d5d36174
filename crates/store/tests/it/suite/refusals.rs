//! Refusals: kept for the operator, within bounds.

use linkspan_model::event::HeaderText;
use linkspan_model::{Clock as _, limits};
use linkspan_store::{NewRefusal, RefusalFilter};

use crate::harness::{World, name};

fn refusal(world: &World, endpoint: Option<i64>, cause: String) -> NewRefusal {
    NewRefusal {
        endpoint,
        at: world.clock.now(),
        status: 401,
        code: "signature.mismatch".to_owned(),
        cause,
        method: "POST".to_owned(),
        remote: Some("192.0.2.7".to_owned()),
        headers: vec![("x-bytes".to_owned(), HeaderText::new(vec![0xff]))],
        body: vec![b'x'; 10],
        body_size: 10,
    }
}

pub async fn keeps_the_newest_thousand_of_each_endpoint(world: World) {
    let row = world.endpoint("in");
    let kept = usize::try_from(limits::REFUSALS_KEPT).unwrap();
    world.store().record_refusals(vec![refusal(&world, None, "no endpoint".to_owned())]).await.unwrap();
    let many = (0..kept + 50).map(|n| refusal(&world, Some(row), n.to_string())).collect();
    world.store().record_refusals(many).await.unwrap();
    let all = world.store().refusals(RefusalFilter { limit: 10_000, ..RefusalFilter::default() }).await.unwrap();
    assert_eq!(all.len(), kept + 1);
    assert_eq!(all.last().unwrap().refusal.cause, "no endpoint");
    let filter = RefusalFilter { endpoint: Some(name("in")), limit: 2, before: None };
    let page = world.store().refusals(filter.clone()).await.unwrap();
    assert_eq!([&page[0].refusal.cause, &page[1].refusal.cause], ["1049", "1048"]);
    let page = world.store().refusals(RefusalFilter { before: Some(page[1].seq), ..filter }).await.unwrap();
    assert_eq!(page[0].refusal.cause, "1047");
    assert_eq!(page[0].endpoint, Some(name("in")));
}

pub async fn gives_a_refusal_back_cut(world: World) {
    let mut given = refusal(&world, None, "too large".to_owned());
    given.body = vec![b'y'; limits::REFUSAL_BODY_BYTES + 1];
    given.body_size = 1 << 40;
    world.store().record_refusals(vec![given.clone()]).await.unwrap();
    let found = world.store().refusals(RefusalFilter { limit: 1, ..RefusalFilter::default() }).await.unwrap().remove(0);
    assert_eq!(found.refusal.body, &given.body[1..]);
    assert_eq!(found.refusal.body_size, given.body_size);
    assert_eq!(found.refusal.headers, given.headers);
    assert_eq!((found.refusal.status, found.refusal.at), (401, given.at));
    assert_eq!(found.endpoint, None);
}
