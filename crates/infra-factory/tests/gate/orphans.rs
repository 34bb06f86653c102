//! Orders that were marked when their bot died are read back, and taken up again.

use infra_factory::{
    gate::NotAtVenue,
    state_store::{Batch, Key, Ttl, When},
};

use crate::common::{Venue, World, cancelled};

#[tokio::test]
async fn a_mark_counts_on_is_listed_and_is_wiped_by_the_bot_that_is_back() {
    let (world, venue) = (World::new().await, Venue::default());
    let approved = world.buy("o-1", "1").await.unwrap();
    world.gate.place(approved, &venue).await.unwrap();
    assert!(world.gate.orphans().await.unwrap().is_empty());
    // As a watcher leaves it behind.
    let mut record = serde_json::to_value(world.gate.order(&"o-1".parse().unwrap()).await.unwrap().unwrap()).unwrap();
    assert!(record.get("orphaned").is_none(), "what is in order is stored as before");
    record["orphaned"] = serde_json::json!({ "since": record["approved_at"], "by": "bot-2", "why": "silent" });
    let key = Key::record("order/open/bot-1/o-1").unwrap();
    let batch = Batch::new(world.namespace.clone());
    let batch = batch.set_when(key, serde_json::to_vec(&record).unwrap(), Ttl::Never, When::Always);
    world.store.inner().apply(batch).await.unwrap();

    let used = world.used().await;
    let listed = world.gate.orphans().await.unwrap();
    assert_eq!(
        listed.iter().map(|o| (o.bot.as_str(), o.record.order.id.as_str())).collect::<Vec<_>>(),
        [("bot-1", "o-1")]
    );
    let back = world.rebuild().await;
    assert_eq!(back.gate.reconcile(&venue, NotAtVenue::Discard).await.unwrap().at_venue, 1);
    assert!(back.gate.orphans().await.unwrap().is_empty());
    assert_eq!(back.used().await, used, "a mark changes nothing that counts");
    assert!(back.actions().await.contains(&"take_up".to_owned()));
    back.report(cancelled("o-1")).await;
    assert!(back.used().await.is_empty());
}
