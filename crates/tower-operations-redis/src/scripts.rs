//! The scripts that the server runs atomically.

use std::sync::LazyLock;

use ::redis::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(
            pub(super) static $name: LazyLock<Script> =
                LazyLock::new(|| Script::new(code!($file)));
        )*

        /// Returns the code of each script.
        pub(super) fn all() -> [&'static str; [$($file),*].len()] {
            [$(code!($file)),*]
        }
    };
}

/// Returns the code of a script, after the beginning that all scripts share.
macro_rules! code {
    ($file:literal) => {
        concat!(include_str!("lua/common.lua"), include_str!($file))
    };
}

scripts! {
    FORMAT = "lua/format.lua";
    READ = "lua/read.lua";
    INSERT = "lua/insert.lua";
    REPLACE = "lua/replace.lua";
    DELETE = "lua/delete.lua";
    RENEW = "lua/renew.lua";
    ABANDONED = "lua/abandoned.lua";
    PUT_ASIDE = "lua/put_aside.lua";
    RESERVE = "lua/reserve.lua";
    SETTLE = "lua/settle.lua";
    RELEASE_KEY = "lua/release_key.lua";
    LIST = "lua/list.lua";
    SECRET = "lua/secret.lua";
    PURGE = "lua/purge.lua";
}
