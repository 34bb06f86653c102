//! A private Redis Cluster: it forms, moves slots and survives its masters.

use infra_testkit::{RedisCluster, Reply};

#[test]
fn a_cluster_moves_slots_and_survives_a_master() {
    let mut cluster = RedisCluster::start();
    assert_eq!(cluster.seeds().len(), 6);
    let slot = cluster.slot_of("{tag}1");
    assert_eq!(cluster.slot_of("{tag}2"), slot);

    // MOVED from the wrong node.
    let owner = cluster.master_of(slot).unwrap();
    let wrong = (0..3).find(|&index| index != owner).unwrap();
    assert_eq!(cluster.nodes()[owner].cli(&["SET", "{tag}1", "one"]), Reply::Status("OK".to_owned()));
    let refusal = cluster.nodes()[wrong].cli(&["GET", "{tag}1"]).text();
    assert_eq!(refusal, format!("MOVED {slot} 127.0.0.1:{}", cluster.nodes()[owner].port()));

    // ASK while the slot moves, MOVED after.
    let moving = cluster.begin_move(slot);
    assert_eq!(moving.from, owner);
    assert_eq!(cluster.nodes()[owner].cli(&["GET", "{tag}1"]).text(), "one");
    let ask = cluster.nodes()[owner].cli(&["GET", "{tag}2"]).text();
    assert_eq!(ask, format!("ASK {slot} 127.0.0.1:{}", cluster.nodes()[moving.to].port()));
    assert_eq!(cluster.move_keys(moving), 1);
    assert!(cluster.nodes()[owner].cli(&["GET", "{tag}1"]).text().starts_with("ASK "));
    cluster.finish_move(moving);
    assert!(cluster.nodes()[owner].cli(&["GET", "{tag}1"]).text().starts_with("MOVED "));
    assert_eq!(cluster.nodes()[moving.to].cli(&["GET", "{tag}1"]).text(), "one");

    // The replica takes over with the data, and the old master comes back as a replica. WAIT counts only the writes of its own
    // connection, so the replica's own copy is asked.
    let reached = |node: usize| cluster.nodes()[node].cli(&["INFO", "replication"]).text();
    assert!(reached(moving.to).contains("connected_slaves:1"));
    let old = cluster.kill_master_of(slot);
    assert_eq!(old, moving.to);
    let new = cluster.wait_for_failover(slot, old);
    assert!(new >= 3);
    assert_eq!(cluster.nodes()[new].cli(&["GET", "{tag}1"]).text(), "one");
    cluster.nodes_mut()[old].restart();
    cluster.wait_until_whole();
    assert_eq!(cluster.master_of(slot), Some(new));
}
