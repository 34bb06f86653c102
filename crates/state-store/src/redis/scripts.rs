//! The scripts, hashed once.

use std::sync::LazyLock;

use infra_backends::RedisScript;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<RedisScript> =
            LazyLock::new(|| RedisScript::new(include_str!(concat!("lua/", $file))));
    };
}

/// One script in several files.
pub(super) static APPLY: LazyLock<RedisScript> = LazyLock::new(|| {
    RedisScript::new(concat!(
        include_str!("lua/apply/begin.lua"),
        include_str!("lua/apply/changes.lua"),
        include_str!("lua/apply/lists.lua"),
        include_str!("lua/apply/windows.lua"),
        include_str!("lua/apply/leases.lua"),
        include_str!("lua/apply/queues.lua"),
        include_str!("lua/apply/end.lua"),
    ))
});
script!(CHANGES, "changes.lua");
script!(CLEAR, "clear.lua");
script!(LIST, "list.lua");
script!(PRUNE, "prune.lua");
script!(READ, "read.lua");
script!(RIGHTS, "rights.lua");
script!(SCAN, "scan.lua");
script!(SET, "set.lua");

#[cfg(test)]
mod tests {
    use infra_types::Timestamp;

    #[test]
    fn the_scripts_know_our_limits() {
        let last = Timestamp::from_nanos(i64::MAX).as_millis().to_string();
        let largest = crate::Value::COUNTER_MAX.to_string();
        assert!(super::APPLY.source().contains(&last) && super::APPLY.source().contains(&largest));
        assert!(super::SET.source().contains(&last));
    }
}
