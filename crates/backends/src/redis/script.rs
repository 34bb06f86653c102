//! A Lua script that the server keeps and that is called by its hash.

use redis::Cmd;

/// A script: its source, and the hash by which servers know it.
///
/// ```
/// use infra_backends::RedisScript;
///
/// let script = RedisScript::new("return redis.call('GET', KEYS[1])");
/// let mut call = script.call(1);
/// call.arg("some-key");
/// assert_eq!(script.hash().len(), 40);
/// ```
#[derive(Debug, Clone)]
pub struct RedisScript {
    source: String,
    hash: String,
}

impl RedisScript {
    /// Hashes `source`. Make a script once and keep it.
    pub fn new(source: impl Into<String>) -> Self {
        let source = source.into();
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }

    /// The SHA-1 of the source, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Begins a call with `keys` keys: append them to the command, then the arguments, and give it to
    /// [`Redis::script`](crate::Redis::script).
    #[must_use]
    pub fn call(&self, keys: usize) -> Cmd {
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg(&self.hash).arg(keys);
        cmd
    }

    pub(super) fn load(&self) -> Cmd {
        let mut cmd = Cmd::new();
        cmd.arg("SCRIPT").arg("LOAD").arg(&self.source);
        cmd
    }
}
