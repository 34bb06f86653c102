use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use infra_state_store::{
    StoreError,
    cache::{Balance, BalanceCache, PermissionCache, Permissions, Session, SessionCache},
};
use infra_types::UserId;

use crate::{World, account, currency, dec, everywhere, home};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

#[tokio::test]
async fn a_session_lives_while_it_is_touched() {
    everywhere(async |mut world: World| {
        let sessions = SessionCache::new(world.store.clone(), home(), world.clock());
        let session = Session {
            id: "s1".into(),
            user: user("ann"),
            created_at: world.now(),
            attributes: BTreeMap::from([("csrf".into(), "hunter2".into())]),
        };
        assert!(sessions.put(&session).await.unwrap());
        world.pass(80_000);
        assert!(sessions.touch("s1").await.unwrap());
        world.restart().await;
        let sessions = SessionCache::new(world.store.clone(), home(), world.clock());
        world.pass(80_000);
        let found = sessions.get("s1").await.unwrap().unwrap();
        assert_eq!((found.value, found.age), (session.clone(), Duration::from_secs(160_000)));
        world.pass(6_400);
        assert_eq!(sessions.get("s1").await.unwrap(), None);
        assert!(!sessions.touch("s1").await.unwrap(), "what is over is not revived");

        assert!(!format!("{session:?} {sessions:?}").contains("hunter2"));
        sessions.put(&session).await.unwrap();
        assert_eq!(sessions.page("", None, 10).await.unwrap().values.len(), 1);
        assert!(sessions.remove("s1").await.unwrap());
        assert!(!sessions.remove("s1").await.unwrap());
        assert!(matches!(sessions.get("").await, Err(StoreError::InvalidKey { .. })));
    })
    .await;
}

#[tokio::test]
async fn permissions_are_forgotten_soon_and_never_listed() {
    everywhere(async |world: World| {
        let cache = PermissionCache::new(world.store.clone(), home(), world.clock());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let of = |name, allowed: &[&str]| Permissions {
            user: user(name),
            roles: names(&["trader"]),
            allowed: names(allowed),
        };
        assert!(cache.put(&of("ann", &["halt", "order"])).await.unwrap());
        assert!(cache.put(&of("ann", &["order"])).await.unwrap(), "the last word counts");
        let found = cache.get(&user("ann")).await.unwrap().unwrap();
        assert!(found.value.allows("order") && !found.value.allows("halt"));
        world.pass(200);
        assert!(cache.touch(&user("ann")).await.unwrap());
        world.pass(299);
        let many = cache.get_many(&[&user("bob"), &user("ann")]).await.unwrap();
        assert!(many[0].is_none() && many[1].is_some());
        world.pass(1);
        assert_eq!(cache.get(&user("ann")).await.unwrap(), None);
        assert!(matches!(cache.page("", None, 10).await, Err(StoreError::Invalid { .. })));
    })
    .await;
}

#[tokio::test]
async fn balances_of_an_account_are_listed_and_views_do_not_mix() {
    everywhere(async |world: World| {
        let cache = BalanceCache::new(world.store.clone(), home(), world.clock()).with_ttl(Duration::from_secs(5));
        for (name, code, total) in [("main", "USDT", "10.25"), ("main", "BTC", "-0.5"), ("main2", "BTC", "7")] {
            let balance = Balance {
                account: account(name),
                currency: currency(code),
                total: dec(total),
                available: dec("0"),
                time: world.now(),
            };
            assert!(cache.put(&balance).await.unwrap());
        }
        let sessions = SessionCache::new(world.store.clone(), home(), world.clock());
        assert_eq!(sessions.page("", None, 10).await.unwrap().values, []);
        let page = cache.page("main/", None, 10).await.unwrap();
        let totals: Vec<_> = page.values.iter().map(|found| found.value.total).collect();
        assert_eq!(totals, [dec("-0.5"), dec("10.25")]);
        world.pass(5);
        assert_eq!(cache.page("main/", None, 10).await.unwrap().values, []);
    })
    .await;
}
