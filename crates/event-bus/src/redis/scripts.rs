//! The scripts, hashed once: one for each step of a broker, each atomic.

use std::sync::LazyLock;

use infra_backends::RedisScript;

macro_rules! script {
    ($name:ident, $flags:literal, $file:literal) => {
        pub(super) static $name: LazyLock<RedisScript> = LazyLock::new(|| {
            RedisScript::new(concat!(
                "#!lua",
                $flags,
                "\n",
                include_str!("lua/common.lua"),
                include_str!(concat!("lua/", $file))
            ))
        });
    };
}

script!(APPEND, "", "append.lua");
script!(CLAIM, "", "claim.lua");
script!(DEAD, " flags=no-writes", "dead.lua");
script!(EXTEND, "", "extend.lua");
script!(LOOK, " flags=no-writes", "look.lua");
script!(OPEN, "", "open.lua");
script!(REMOVE, "", "remove.lua");
script!(RIGHTS, " flags=no-writes", "rights.lua");
script!(SETTLE, "", "settle.lua");
script!(TAKE_OVER, "", "take_over.lua");
