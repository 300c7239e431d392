//! Statements over the table of a collection.

use std::io::Write as _;

use anyhow::Result;
use postgres::types::ToSql;
use postgres::{Client, Error};
use serde_json::Value as Json;

use super::rows::Row;
use crate::engines::{EngineError, EngineHybrid, EngineQuery, EngineResult};
use crate::failure::bad_input;

/// Longest name of a table, in bytes: longer ones are truncated by the server.
const NAME_BYTES_MAX: usize = 63;
/// First words of the comment of a table.
const COMMENT: &str = "splade collection ";
/// Columns that are written, in the order of [`Row`].
const COLUMNS: &str = "id, digest, title, text, payload, typed, splade";
/// Smallest and largest number of vectors that a search of an HNSW index looks at.
const EF_SEARCH: (usize, usize) = (100, 1000);

/// Place of values in a statement.
pub(super) enum Binder {
    /// values are parameters
    Parameters(Vec<Parameter>),
    /// values are literals, for people to read
    Literals,
}

/// Parameter of a statement.
pub(super) enum Parameter {
    Text(String),
    Texts(Vec<String>),
}

impl Binder {
    /// The expression of a text.
    pub(super) fn text(&mut self, text: String) -> String {
        match self {
            Self::Parameters(parameters) => {
                parameters.push(Parameter::Text(text));
                format!("${}::text", parameters.len())
            }
            Self::Literals => format!("{}::text", literal(&text)),
        }
    }

    /// The expression of an array of texts.
    pub(super) fn texts(&mut self, texts: Vec<String>) -> String {
        match self {
            Self::Parameters(parameters) => {
                parameters.push(Parameter::Texts(texts));
                format!("${}::text[]", parameters.len())
            }
            Self::Literals => {
                let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
                format!("ARRAY[{}]::text[]", texts.join(", "))
            }
        }
    }

    /// The values of the parameters.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let Self::Parameters(parameters) = self else { return Vec::new() };
        parameters.iter().map(Parameter::value).collect()
    }
}

impl Parameter {
    fn value(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::Texts(texts) => texts,
        }
    }
}

/// Reciprocal rank fusion of a ranking by vectors and one by words.
pub(super) struct Rrf {
    k: f32,
    weights: [f32; 2],
    depth: usize,
}

impl Rrf {
    /// The fusion of a query.
    ///
    /// # Errors
    /// Any other fusion.
    pub(super) fn of(hybrid: &EngineHybrid<'_>, place: &str) -> EngineResult<Self> {
        if hybrid.fusion.name() != "rrf" {
            let message = format!("{place}: its statement fuses by rrf, not by {}", hybrid.fusion.name());
            return Err(EngineError::input(message, "use --fusion rrf"));
        }
        let parameters = hybrid.fusion.parameters();
        let weight = |at: usize| parameters.weights.get(at).copied().unwrap_or(1.0);
        Ok(Self { k: parameters.rrf_k, weights: [weight(0), weight(1)], depth: hybrid.depth })
    }
}

/// The table of a collection.
pub(super) struct Table {
    name: String,
    quoted: String,
}

impl Table {
    /// A table of this name.
    ///
    /// # Errors
    /// A name that PostgreSQL truncates or refuses.
    pub(super) fn named(name: &str) -> Result<Self> {
        if name.len() > NAME_BYTES_MAX || name.contains('\0') {
            let message = format!("--collection: no name of a table: {} bytes", name.len());
            return Err(bad_input(message, format!("give a name of at most {NAME_BYTES_MAX} bytes")));
        }
        Ok(Self { name: name.to_owned(), quoted: format!("\"{}\"", name.replace('"', "\"\"")) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name in quotation marks, as it stands in statements.
    pub(super) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// Reads the comment; `$1` is the quoted name. There is no row without such a table.
    pub(super) fn comment(&self) -> &'static str {
        "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass($1)"
    }

    /// Keeps a manifest in the comment.
    pub(super) fn set_comment(&self, manifest: &Json) -> String {
        format!("COMMENT ON TABLE {} IS {}", self.quoted, literal(&format!("{COMMENT}{manifest}")))
    }

    pub(super) fn count(&self) -> String {
        format!("SELECT count(*) FROM {}", self.quoted)
    }

    /// Creates extension, table and indexes.
    pub(super) fn create(&self, dimensions: u32, language: &str) -> String {
        let (table, configuration) = (&self.quoted, configuration(language));
        format!(
            "CREATE EXTENSION IF NOT EXISTS vector;
             CREATE TABLE {table} (
                 id text COLLATE \"C\" PRIMARY KEY,
                 digest text NOT NULL,
                 title text,
                 text text NOT NULL,
                 payload jsonb NOT NULL,
                 typed jsonb NOT NULL,
                 words tsvector NOT NULL GENERATED ALWAYS AS
                     (to_tsvector('{configuration}'::regconfig, coalesce(title || ' ', '') || text)) STORED,
                 splade sparsevec({dimensions}) NOT NULL
             );
             CREATE INDEX ON {table} USING gin (typed jsonb_path_ops);
             CREATE INDEX ON {table} USING gin (words);"
        )
    }

    pub(super) fn remove(&self) -> String {
        format!("DROP TABLE {}", self.quoted)
    }

    /// Reads ids and digests; `$1` are ids.
    pub(super) fn digests(&self) -> String {
        format!("SELECT id, digest FROM {} WHERE id = ANY($1)", self.quoted)
    }

    /// Reads the ids after `$1`.
    pub(super) fn ids(&self, page: usize) -> String {
        format!("SELECT id FROM {} WHERE id > $1 ORDER BY id LIMIT {page}", self.quoted)
    }

    /// Deletes the documents with the ids `$1`.
    pub(super) fn delete(&self) -> String {
        format!("DELETE FROM {} WHERE id = ANY($1)", self.quoted)
    }

    pub(super) fn analyze(&self) -> String {
        format!("ANALYZE {}", self.quoted)
    }

    /// Finds an HNSW index; `$1` is the quoted name.
    pub(super) fn hnsw_index(&self) -> &'static str {
        "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
         WHERE indrelid = to_regclass($1) AND amname = 'hnsw' AND indisvalid LIMIT 1"
    }

    pub(super) fn create_hnsw_index(&self) -> String {
        format!("CREATE INDEX ON {} USING hnsw (splade sparsevec_ip_ops)", self.quoted)
    }

    /// Adds or replaces rows by COPY into a temporary table.
    pub(super) fn copy(&self, client: &mut Client, rows: &[Row]) -> Result<(), Error> {
        let mut text = String::new();
        rows.iter().for_each(|row| row.write(&mut text));
        let mut transaction = client.transaction()?;
        transaction.batch_execute(
            "CREATE TEMPORARY TABLE splade_incoming
                 (id text, digest text, title text, text text, payload jsonb, typed jsonb, splade sparsevec)
             ON COMMIT DROP",
        )?;
        let mut writer = transaction.copy_in("COPY splade_incoming FROM STDIN")?;
        // a connection that breaks here gives the error of `finish`
        let _ = writer.write_all(text.as_bytes());
        writer.finish()?;
        transaction.execute(&self.upsert("splade_incoming"), &[])?;
        transaction.commit()
    }

    /// Adds or replaces rows by one INSERT: the plain twin of [`copy`](Self::copy), for servers that refuse COPY.
    pub(super) fn insert(&self, client: &mut Client, rows: &[Row]) -> Result<(), Error> {
        let column = |value: fn(&Row) -> &str| rows.iter().map(value).collect::<Vec<&str>>();
        let titles: Vec<Option<&str>> = rows.iter().map(|row| row.title.as_deref()).collect();
        let incoming = "(SELECT id, digest, title, text, payload::jsonb, typed::jsonb, splade::sparsevec
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
                 AS rows(id, digest, title, text, payload, typed, splade)) AS incoming";
        client
            .execute(
                &self.upsert(incoming),
                &[
                    &column(|row| &row.id),
                    &column(|row| &row.digest),
                    &titles,
                    &column(|row| &row.text),
                    &column(|row| &row.payload),
                    &column(|row| &row.typed),
                    &column(|row| &row.splade),
                ],
            )
            .map(drop)
    }

    fn upsert(&self, incoming: &str) -> String {
        let updates = COLUMNS.split(", ").skip(1).map(|column| format!("{column} = EXCLUDED.{column}"));
        format!(
            "INSERT INTO {} ({COLUMNS}) SELECT {COLUMNS} FROM {incoming} ON CONFLICT (id) DO UPDATE SET {}",
            self.quoted,
            updates.collect::<Vec<_>>().join(", ")
        )
    }

    /// Ranks by vectors: `<#>` is the negative inner product.
    pub(super) fn search(
        &self,
        query: &EngineQuery<'_>,
        vector: &str,
        condition: Option<&str>,
        has_hnsw: bool,
    ) -> String {
        let documents = if query.with_documents { ", title, text, payload::text AS payload" } else { "" };
        let filter = condition.map_or(String::new(), |condition| format!("\nWHERE {condition}"));
        // an HNSW index knows no second order
        let order = if has_hnsw { "" } else { ", id" };
        format!(
            "SELECT id, -(splade <#> {vector}::sparsevec) AS score{documents}\nFROM {}{filter}\n\
             ORDER BY splade <#> {vector}::sparsevec{order}\nLIMIT {}",
            self.quoted, query.k
        )
    }

    /// Ranks by vectors and by words, and fuses both by the reciprocals of their ranks. `words` is a `tsquery`.
    pub(super) fn hybrid_search(
        &self,
        query: &EngineQuery<'_>,
        vector: &str,
        words: &str,
        condition: Option<&str>,
        rrf: &Rrf,
    ) -> String {
        let Rrf { k, weights: [by_vector, by_words], depth } = rrf;
        let (table, filter) = (&self.quoted, condition.map_or(String::new(), |condition| format!(" AND {condition}")));
        let documents = if query.with_documents { ", title, text, payload::text AS payload" } else { "" };
        format!(
            "WITH by_vector AS (
    SELECT id, row_number() OVER (ORDER BY distance, id) AS rank
    FROM (SELECT id, splade <#> {vector}::sparsevec AS distance FROM {table}
          WHERE TRUE{filter} ORDER BY distance LIMIT {depth}) AS nearest
    WHERE distance < 0
), by_words AS (
    SELECT id, row_number() OVER (ORDER BY similarity DESC, id) AS rank
    FROM (SELECT id, ts_rank(words, query) AS similarity FROM {table}, {words} AS query
          WHERE words @@ query{filter} ORDER BY similarity DESC, id LIMIT {depth}) AS nearest
)
SELECT id, coalesce({by_vector}::float8 / ({k} + by_vector.rank), 0)
    + coalesce({by_words}::float8 / ({k} + by_words.rank), 0) AS score{documents}
FROM by_vector FULL JOIN by_words USING (id) JOIN {table} USING (id)
ORDER BY score DESC, id
LIMIT {}",
            query.k
        )
    }
}

/// The manifest in the comment of a table; none if this program did not make the table.
pub(super) fn manifest_of(comment: &str) -> Option<Json> {
    serde_json::from_str(comment.strip_prefix(COMMENT)?).ok()
}

/// A `tsquery` that any of the words of a text meets. `plainto_tsquery` joins them by `&`.
pub(super) fn words_query(language: &str, text: &str) -> String {
    let configuration = configuration(language);
    format!(
        "CAST(replace(CAST(plainto_tsquery('{configuration}'::regconfig, {text}) AS text), ' & ', ' | ') AS tsquery)"
    )
}

/// Settings of a search of an HNSW index for `depth` hits.
pub(super) fn hnsw_settings(depth: usize) -> String {
    let (least, most) = EF_SEARCH;
    format!("SET LOCAL hnsw.ef_search = {};\nSET LOCAL hnsw.iterative_scan = strict_order", depth.clamp(least, most))
}

/// Configuration of text search for a language of an index.
fn configuration(language: &str) -> &'static str {
    match language {
        "norwegian" => "norwegian",
        "danish" => "danish",
        "swedish" => "swedish",
        "english" => "english",
        _ => "simple",
    }
}

/// A text as a literal, with `standard_conforming_strings`, which is the default.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
