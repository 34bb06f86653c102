//! A private master with replicas and sentinels: the sentinels replace a dead master.

use infra_testkit::RedisSentinel;

#[test]
fn the_sentinels_replace_a_dead_master() {
    let mut set = RedisSentinel::start();
    assert_eq!(set.sentinels().len(), 3);
    assert_eq!(set.service(), "infra");
    assert_eq!(set.master(), Some(0));
    assert_eq!(set.kill_master(), 0);
    let new = set.wait_for_new_master(0);
    assert_ne!(new, 0);
    assert_eq!(set.servers()[new].cli(&["SET", "key", "value"]).text(), "OK");
    // The old master comes back as a replica of the new one.
    set.servers_mut()[0].restart();
    let follows = (0..6_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        set.servers()[0].try_cli(&["GET", "key"]).is_ok_and(|value| value.text() == "value")
    });
    assert!(follows);
}
