//! Flags of `serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::NetworkArgs;
use super::values::{at_least_one, size_of};

/// Serve indexes over HTTP: search, encoding, explanations, and a page for people
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  splade serve --index wiki.index
  splade serve --index wiki.index --index news=news.index --port 9000 --api-key-file keys.txt
  splade serve --index wiki.index --model demo/model/final --writable

The page is at /, the description of the interface at /openapi.json, the metrics at /metrics.
New commits of an index are served within a second. SIGHUP opens replaced index folders and the file of keys anew.
SIGTERM and SIGINT end the server after the requests that it has read; the exit code is then 0.")]
pub(crate) struct ServeArgs {
    /// Index folder, with a name for requests: DIR or NAME=DIR; default of the name: that of the folder without .index; repeatable
    #[arg(long, value_name = "[NAME=]DIR", required = true, num_args = 1.., value_parser = named_index)]
    pub(crate) index: Vec<NamedIndex>,
    /// Model folder or Hub id: encodes documents, and queries of models whose queries need the network
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Dense model that the indexes were made with, a folder or Hub id: for the mode dense, and for a third ranking in hybrid mode
    #[arg(long, value_name = "MODEL")]
    pub(crate) dense: Option<PathBuf>,
    /// Let requests add and delete documents; every change is on the disk before it is answered
    #[arg(long)]
    pub(crate) writable: bool,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0: any free port
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// File of keys, one a line: every request but /, /healthz and /readyz needs one of them, as `Authorization: Bearer KEY`
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Listen on an address of other machines without keys: everyone who reaches it may search
    #[arg(long, conflicts_with = "api_key_file")]
    pub(crate) allow_unauthenticated: bool,
    /// Most bytes of a request's body, like 500KB or 4MB
    #[arg(long, value_name = "SIZE", default_value = "4MB", value_parser = size_of)]
    pub(crate) max_body: usize,
    /// Most queries, texts or documents of a request
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    pub(crate) max_batch: usize,
    /// Most tokens of a query's text, and most terms of its vector
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    pub(crate) max_tokens: usize,
    /// Most hits of a query, and most hits taken from each ranking before fusion
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub(crate) max_k: usize,
    /// Most requests that are answered or wait at a time; further ones get 429
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    pub(crate) max_concurrent: usize,
    /// Most seconds to answer a request, after which it gets 503
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Index folder with its name in requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedIndex {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

/// Parses `DIR` or `NAME=DIR`. A folder whose path has a `=` needs a name.
fn named_index(text: &str) -> Result<NamedIndex, String> {
    let (name, dir) = match text.split_once('=') {
        Some((name, dir)) => (name.to_owned(), PathBuf::from(dir)),
        None => {
            let dir = PathBuf::from(text);
            let name = std::path::absolute(&dir).ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            let name = name.unwrap_or_default();
            (name.strip_suffix(".index").unwrap_or(&name).to_owned(), dir)
        }
    };
    let is_plain = |character: char| character.is_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || !name.chars().all(is_plain) || dir.as_os_str().is_empty() {
        return Err("expected DIR or NAME=DIR, with a name of letters, digits, '-', '_' and '.'".to_owned());
    }
    Ok(NamedIndex { name, dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_the_name_of_its_folder_or_one_of_its_own() {
        for (text, name, dir) in [
            ("wiki.index", "wiki", "wiki.index"),
            ("data/wiki.index/", "wiki", "data/wiki.index/"),
            ("news", "news", "news"),
            ("a=b=c", "a", "b=c"),
        ] {
            let expected = NamedIndex { name: name.into(), dir: dir.into() };
            assert_eq!(named_index(text), Ok(expected), "{text}");
        }
        for text in ["", "=dir", "name=", "a b=dir", "a/b=dir"] {
            assert!(named_index(text).is_err(), "{text}");
        }
    }
}
