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

/// Without what the others share.
macro_rules! alone {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<RedisScript> =
            LazyLock::new(|| RedisScript::new(concat!("#!lua\n", include_str!(concat!("lua/", $file)))));
    };
}

alone!(ROWS_FAST, "rows_fast.lua");
alone!(TURN_FAST, "turn_fast.lua");
script!(APPEND, "", "lanes.lua" "lay.lua" "append.lua");
script!(CANCEL, "", "cancel.lua");
script!(CLAIM, "", "claim_first.lua" "lanes.lua" "end.lua" "claim_ends.lua" "lay.lua" "match.lua" "claim.lua");
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
script!(SETTLE, "", "lanes.lua" "end.lua" "settle.lua");
script!(WITHDRAW, "", "lanes.lua" "withdraw.lua");
script!(TAKE_OVER, "", "lanes.lua" "take_over.lua");
