//! The scripts, hashed once: one for each step of a broker, each atomic.

use std::sync::LazyLock;

use infra_backends::RedisScript;

macro_rules! script {
    ($name:ident, $flags:literal, $($file:literal)+) => {
        pub(super) static $name: LazyLock<RedisScript> = LazyLock::new(|| {
            RedisScript::new(concat!("#!lua", $flags, "\n", include_str!("lua/common.lua"), $(include_str!(concat!("lua/", $file)),)+))
        });
    };
}

script!(APPEND, "", "lanes.lua" "lay.lua" "append.lua");
script!(CANCEL, "", "cancel.lua");
script!(CLAIM, "", "claim_first.lua" "lanes.lua" "lay.lua" "match.lua" "claim.lua");
script!(CLEAN, "", "lanes.lua" "clean.lua");
script!(DEAD, " flags=no-writes", "dead.lua");
script!(DELAY, "", "delay.lua");
script!(DELAYED, " flags=no-writes", "delayed.lua");
script!(EXTEND, "", "lanes.lua" "extend.lua");
script!(HISTORY, " flags=no-writes", "history.lua");
script!(LIST, " flags=no-writes", "list.lua");
script!(LOOK, " flags=no-writes", "lanes.lua" "look.lua");
script!(OPEN, "", "lanes.lua" "lay.lua" "match.lua" "open.lua");
script!(PURGE, "", "purge.lua");
script!(REDRIVE, "", "lanes.lua" "redrive.lua");
script!(REMOVE, "", "remove.lua");
script!(RIGHTS, " flags=no-writes", "rights.lua");
script!(ROWS, "", "lanes.lua" "lay.lua" "rows.lua");
script!(SETTLE, "", "lanes.lua" "settle.lua");
script!(TAKE_OVER, "", "lanes.lua" "take_over.lua");
