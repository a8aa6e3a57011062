//! Where long results are kept: a folder or a bucket.

use std::{fs, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use object_store::{
    ObjectStore, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as ObjectPath,
};
use rustls::crypto::ring;
use tokio::time::timeout;
use tower::BoxError;
use tower_operations_object_store::ObjectResults;
use url::Url;

/// The prefix of the objects by default.
const PREFIX: &str = "results";

/// The time-out of the first call to a bucket.
const FIRST_CALL: Duration = Duration::from_secs(10);

// The options of a process that records results. A doc comment would be its description.
#[derive(clap::Args)]
pub struct LongResults {
    /// The largest response body that is recorded; 8 MiB by default, and no limit with `--results`.
    #[arg(long, value_name = "BYTES")]
    pub result_limit: Option<u64>,
    /// Where results of more than 256 KiB are kept, and such requests that are stored: `file:FOLDER`,
    /// or `s3://BUCKET/PREFIX?endpoint=URL&region=REGION`, of which all but the bucket can be left
    /// out. The credentials are those of the environment, such as `AWS_ACCESS_KEY_ID`. By default
    /// they are kept with their operations. All processes on a store need the same value.
    #[arg(long, value_name = "RESULTS")]
    pub results: Option<ResultsKind>,
}

impl LongResults {
    /// Opens the store of results, if there is one.
    pub async fn open(&self) -> Result<Option<ObjectResults>, BoxError> {
        match &self.results {
            Some(results) => results.open().await.map(Some),
            None => Ok(None),
        }
    }
}

/// Where long results are kept.
#[derive(Debug, Clone, PartialEq)]
pub enum ResultsKind {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A bucket of S3, or of a server with the same protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    name: String,
    prefix: ObjectPath,
    /// The address of the server; by default that of the region.
    endpoint: Option<Url>,
    region: Option<String>,
}

impl FromStr for ResultsKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::Folder(path.into())),
            Some(("s3", _)) => Bucket::parse(text).map(Self::Bucket),
            _ => Err("expected `file:FOLDER` or `s3://BUCKET`".into()),
        }
    }
}

impl Bucket {
    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials are read from AWS_ACCESS_KEY_ID and \
                        AWS_SECRET_ACCESS_KEY, not from the URL"
                .into());
        }
        if url.port().is_some() || url.fragment().is_some() {
            return Err("expected `s3://BUCKET/PREFIX?endpoint=URL&region=REGION`".into());
        }
        let name = url.host_str().filter(|name| is_bucket_name(name));
        let name = name.ok_or(
            "expected `s3://BUCKET`, a name of 3 to 63 lower-case letters, digits, `-` and `.`",
        )?;
        let prefix = ObjectPath::from_url_path(url.path()).map_err(|error| error.to_string())?;
        let mut bucket = Self {
            name: name.to_owned(),
            prefix: match prefix.is_root() {
                true => PREFIX.into(),
                false => prefix,
            },
            endpoint: None,
            region: None,
        };
        for (key, value) in url.query_pairs() {
            let is_repeated = match &*key {
                "endpoint" => bucket.endpoint.replace(endpoint(&value)?).is_some(),
                "region" if value.is_empty() => return Err("`region` is empty".into()),
                "region" => bucket.region.replace(value.into_owned()).is_some(),
                _ => {
                    return Err(format!(
                        "unknown parameter `{key}`, expected `endpoint` or `region`"
                    ));
                }
            };
            if is_repeated {
                return Err(format!("`{key}` is given twice"));
            }
        }
        Ok(bucket)
    }

    /// Returns the bucket, with the credentials and other settings of the environment.
    fn connect(&self) -> Result<Arc<dyn ObjectStore>, BoxError> {
        // An error says that there is a provider already.
        let _ = ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.name);
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder
                .with_endpoint(endpoint.as_str().trim_end_matches('/'))
                .with_allow_http(endpoint.scheme() == "http")
                .with_virtual_hosted_style_request(false);
        }
        Ok(Arc::new(builder.build()?))
    }

    /// Opens the bucket, and checks that it exists and that its objects may be listed.
    async fn open(&self) -> Result<ObjectResults, BoxError> {
        let bucket = self.connect()?;
        let mut objects = bucket.list(Some(&self.prefix));
        let first = timeout(FIRST_CALL, objects.try_next()).await;
        first.map_err(|_| "the bucket does not answer")??;
        drop(objects);
        Ok(ObjectResults::new(bucket, self.prefix.as_ref()))
    }
}

fn is_bucket_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| is_allowed(byte) || b"-.".contains(&byte))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// Parses the address of a server.
fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("endpoint: {error}"))?;
    let has_more = url.query().is_some() || url.fragment().is_some() || !url.username().is_empty();
    match url.scheme() {
        "http" | "https" if !has_more => Ok(url),
        _ => Err("endpoint: expected `http://HOST:PORT` or `https://HOST`".into()),
    }
}

impl ResultsKind {
    /// Opens the store of results. A folder is created if it does not exist.
    async fn open(&self) -> Result<ObjectResults, BoxError> {
        match self {
            Self::Folder(path) => {
                fs::create_dir_all(path)?;
                let folder = LocalFileSystem::new_with_prefix(path)?.with_fsync(true);
                Ok(ObjectResults::new(Arc::new(folder), PREFIX))
            }
            Self::Bucket(bucket) => bucket.open().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_buckets_are_parsed() {
        let folder: ResultsKind = "file:a/b".parse().unwrap();
        assert_eq!(folder, ResultsKind::Folder("a/b".into()));
        let bucket = |text: &str| match text.parse() {
            Ok(ResultsKind::Bucket(bucket)) => bucket,
            other => panic!("{text}: {other:?}"),
        };
        let plain = bucket("s3://reports");
        assert_eq!((&*plain.name, plain.prefix.as_ref()), ("reports", PREFIX));
        assert_eq!((plain.endpoint, plain.region), (None, None));
        let full = "s3://re.ports-7/a/b%20c/?endpoint=http://127.0.0.1:9000&region=eu-west-1";
        let full = bucket(full);
        assert_eq!((&*full.name, full.prefix.as_ref()), ("re.ports-7", "a/b c"));
        let endpoint = full.endpoint.as_ref().map(Url::as_str);
        assert_eq!(endpoint, Some("http://127.0.0.1:9000/"));
        assert_eq!(full.region.as_deref(), Some("eu-west-1"));
        let encoded = bucket("s3://reports?endpoint=https%3A%2F%2Fs3.example.com");
        let endpoint = encoded.endpoint.as_ref().map(Url::as_str);
        assert_eq!(endpoint, Some("https://s3.example.com/"));
    }

    #[test]
    fn wrong_urls_are_refused() {
        for (text, expected) in [
            ("", "`file:FOLDER`"),
            ("file:", "`file:FOLDER`"),
            ("reports", "`s3://BUCKET`"),
            ("gs://reports", "`s3://BUCKET`"),
            ("s3:reports", "`s3://BUCKET`"),
            ("s3://", "`s3://BUCKET`"),
            ("s3:///prefix", "`s3://BUCKET`"),
            ("s3://Reports", "lower-case"),
            ("s3://ab", "3 to 63"),
            ("s3://-reports", "digits"),
            ("s3://reports:9000", "endpoint=URL"),
            ("s3://reports#a", "endpoint=URL"),
            ("s3://key:secret@reports", "AWS_ACCESS_KEY_ID"),
            ("s3://reports/a//b", "empty path segment"),
            ("s3://reports?server=http://127.0.0.1", "`server`"),
            ("s3://reports?region=", "`region` is empty"),
            ("s3://reports?region=a&region=b", "`region` is given twice"),
            ("s3://reports?endpoint=127.0.0.1:9000", "endpoint: "),
            ("s3://reports?endpoint=ftp://127.0.0.1", "`https://HOST`"),
            (
                "s3://reports?endpoint=http://a:b@127.0.0.1",
                "`https://HOST`",
            ),
            (
                "s3://reports?endpoint=http://127.0.0.1?a=b",
                "`https://HOST`",
            ),
        ] {
            match text.parse::<ResultsKind>() {
                Err(error) => assert!(error.contains(expected), "{text}: {error}"),
                Ok(parsed) => panic!("{text}: {parsed:?}"),
            }
        }
    }
}
