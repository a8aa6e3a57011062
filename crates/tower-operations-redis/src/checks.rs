//! The check of a server before it is trusted with operations.

use ::redis::{FromRedisValue, Pipeline, Value, cmd};
use tower_operations::store::{Health, HealthWarning, StoreError};

use super::{RedisError, connection::Connection, names::RedisNames, scripts};

/// The format that this release writes. Older formats are read and migrated.
const FORMAT: &str = "2";

/// Refuses a server that could lose acknowledged data, and an unknown format.
pub(super) async fn check(
    connection: &Connection,
    names: &RedisNames,
    trusted: bool,
) -> Result<(), RedisError> {
    let told = ServerSettings::by(connection, trusted).await?;
    told.check()?;
    load(connection).await?;
    check_format(connection, names).await
}

/// Checks a server in use.
pub(super) async fn health(connection: &Connection, trusted: bool) -> Result<Health, StoreError> {
    let told = ServerSettings::by(connection, trusted).await;
    Ok(told.map_err(StoreError::unavailable)?.health())
}

/// The settings that the server reports.
struct ServerSettings {
    info: String,
    trusted: bool,
}

impl ServerSettings {
    async fn by(connection: &Connection, trusted: bool) -> Result<Self, RedisError> {
        let info = match connection.send(&cmd("INFO")).await {
            Ok(info) => String::from_redis_value(info).unwrap_or_default(),
            Err(failure) => match failure.into() {
                RedisError::Refused(_) if trusted => String::new(),
                error => return Err(error),
            },
        };
        let mut told = ServerSettings { info, trusted };
        told.read_policy(connection).await?;
        Ok(told)
    }

    /// Returns a field of `INFO`.
    fn field(&self, name: &str) -> Option<&str> {
        self.info.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field == name).then_some(value.trim())
        })
    }

    /// Returns a field of `INFO` that the store has to know.
    fn needed(&self, name: &'static str) -> Result<Option<&str>, RedisError> {
        match self.field(name) {
            None if !self.trusted => Err(RedisError::Untold { what: name }),
            value => Ok(value),
        }
    }

    /// Reads the policy from `CONFIG` where a managed server omits it from `INFO`.
    async fn read_policy(&mut self, connection: &Connection) -> Result<(), RedisError> {
        if self.field("maxmemory_policy").is_some() {
            return Ok(());
        }
        let mut get = cmd("CONFIG");
        get.arg("GET").arg("maxmemory-policy");
        let policy = match connection.send(&get).await {
            Ok(pair) => Vec::<String>::from_redis_value(pair).ok(),
            Err(failure) => match failure.into() {
                // `CONFIG` is forbidden, or unknown.
                RedisError::Refused(_) => None,
                error => return Err(error),
            },
        };
        if let Some(policy) = policy.and_then(|pair| pair.into_iter().nth(1)) {
            self.info.push_str(&format!("\nmaxmemory_policy:{policy}"));
        }
        Ok(())
    }

    /// Returns the settings that make the server less durable than it can be.
    fn health(&self) -> Health {
        let setting = |name: &str, value: &str| HealthWarning::Setting {
            name: name.into(),
            value: value.into(),
        };
        let mut warnings = Vec::new();
        if matches!(self.field("role"), Some("slave" | "replica")) {
            warnings.push(HealthWarning::Standby);
        }
        if let Some(policy) = self.field("maxmemory_policy")
            && policy != "noeviction"
        {
            warnings.push(setting("maxmemory-policy", policy));
        }
        if self.field("aof_enabled") == Some("0") {
            warnings.push(setting("appendonly", "no"));
        }
        Health::new(warnings)
    }

    fn check(&self) -> Result<(), RedisError> {
        if let Some(version) = self.needed("redis_version")?
            && !is_new_enough(version)
        {
            let version = version.into();
            return Err(RedisError::TooOld { version });
        }
        if self.field("cluster_enabled") == Some("1") {
            return Err(RedisError::Cluster);
        }
        if matches!(self.needed("role")?, Some("slave" | "replica")) {
            return Err(RedisError::Replica);
        }
        if let Some(policy) = self.needed("maxmemory_policy")?
            && policy != "noeviction"
        {
            let policy = policy.into();
            return Err(RedisError::Evicts { policy });
        }
        if self.field("aof_enabled") == Some("0") {
            tracing::warn!(
                "this Redis server has no append-only file: what it acknowledged since its \
                 last snapshot is lost when it dies"
            );
        }
        Ok(())
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let mut part = || parts.next().flatten().unwrap_or(0);
    (part(), part()) >= (6, 2)
}

/// Loads all scripts, so that even the first call of each is one round trip.
async fn load(connection: &Connection) -> Result<(), RedisError> {
    let mut loads = Pipeline::new();
    for code in scripts::all() {
        loads.cmd("SCRIPT").arg("LOAD").arg(code);
    }
    connection.send_all(&loads).await?;
    Ok(())
}

/// Writes the format if there is none or an older one; returns an error if the format is
/// newer.
async fn check_format(connection: &Connection, names: &RedisNames) -> Result<(), RedisError> {
    let mut call = cmd("EVALSHA");
    call.arg(scripts::FORMAT.get_hash())
        .arg(1)
        .arg(names.format());
    call.arg(names.prefix()).arg(FORMAT);
    match connection.run(&scripts::FORMAT, &call).await? {
        Value::BulkString(format) if format == FORMAT.as_bytes() => Ok(()),
        Value::BulkString(format) => Err(RedisError::Format {
            format: String::from_utf8_lossy(&format).into(),
        }),
        other => Err(RedisError::Format {
            format: format!("{other:?}").into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(info: &str) -> ServerSettings {
        ServerSettings {
            info: info.into(),
            trusted: false,
        }
    }

    const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n";

    #[test]
    fn servers_that_could_lose_operations_are_refused() {
        assert!(told(GOOD).check().is_ok());
        for (good, bad) in [
            ("7.0.15", "6.0.16"),
            ("master", "slave"),
            ("noeviction", "volatile-ttl"),
            ("role:master\r\n", ""),
            ("maxmemory_policy:noeviction\r\n", ""),
            ("role", "cluster_enabled:1\r\nrole"),
        ] {
            assert!(GOOD.contains(good));
            let info = GOOD.replace(good, bad);
            assert!(told(&info).check().is_err(), "{info}");
        }
        let silent = ServerSettings {
            trusted: true,
            ..told("")
        };
        assert!(silent.check().is_ok());
    }

    #[test]
    fn settings_that_reduce_durability_are_reported_for_a_server_in_use() {
        assert!(told(GOOD).health().is_good());
        for (good, bad, warning) in [
            ("master", "slave", "the server is a standby or a replica"),
            (
                "noeviction",
                "allkeys-lru",
                "`maxmemory-policy` is `allkeys-lru`",
            ),
            ("role", "aof_enabled:0\r\nrole", "`appendonly` is `no`"),
        ] {
            let health = told(&GOOD.replace(good, bad)).health();
            let warnings: Vec<_> = health.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(warnings, [warning]);
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for version in ["6.2.0", "6.10.1", "7.0.15", "10.0.0", "255.255.255"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["2.8", "5.0.14", "6.0.16", "6.1.9", ""] {
            assert!(!is_new_enough(version), "{version}");
        }
    }
}
