//! `splade export-vectors`: index or file of vectors → files that other programs read.

mod source;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use splade_core::SparseVector;
use splade_files::{
    AtomicFolder, CiffWriter, CsrWriter, DocumentRow, Impacts, PostingTables, write_impacts_by_key,
    write_weights_by_key,
};
use splade_index::StoredDocument;

use self::source::Source;
use super::interrupt;
use crate::cli::{ExportFormat, ExportKeys, ExportVectorsArgs};
use crate::console;
use crate::failure::bad_input;
use crate::outputs::{NewFolders, Output, refuse_existing};

/// Scale of impacts where a format has no weights.
const DEFAULT_SCALE: f32 = 100.0;

pub(crate) fn run(args: &ExportVectorsArgs) -> Result<()> {
    check_flags(args)?;
    let source = Source::open(args)?;
    let mut export = Export { source: &source, args, counts: Counts::default(), bar: source.progress() };
    let start = Instant::now();
    match args.format {
        ExportFormat::Jsonl => export.jsonl()?,
        ExportFormat::Csr => export.csr()?,
        ExportFormat::Ciff => export.ciff()?,
        ExportFormat::ParquetPostings => export.tables()?,
    }
    export.bar.finish_and_clear();
    export.counts.report(args, start.elapsed().as_secs_f64());
    Ok(())
}

/// Refuses flags that the format has no use for.
fn check_flags(args: &ExportVectorsArgs) -> Result<()> {
    let has_names = matches!(args.format, ExportFormat::Jsonl | ExportFormat::Ciff);
    let given = [(args.keys.is_some(), "--keys"), (args.impacts.is_some(), "--impacts")];
    if let Some((_, flag)) = given.iter().find(|(is_given, _)| *is_given && !has_names) {
        return Err(bad_input(format!("{flag}: only for the formats jsonl and ciff"), format!("leave {flag} out")));
    }
    if args.output == Path::new("-") && args.format != ExportFormat::Jsonl {
        return Err(bad_input("--output -: only lines of jsonl are written to stdout", "give --output FILE"));
    }
    Ok(())
}

/// A run of the command.
struct Export<'a> {
    source: &'a Source,
    args: &'a ExportVectorsArgs,
    counts: Counts,
    bar: ProgressBar,
}

impl Export<'_> {
    fn jsonl(&mut self) -> Result<()> {
        let name = self.names()?;
        let mut output = Output::open(Some(&self.args.output), self.args.overwrite)?;
        self.each(|counts, document, vector| {
            let content = document.full_text();
            match self.args.impacts {
                None => output.put(|out| write_weights_by_key(out, &document.id, &content, vector, &name)),
                Some(impacts) => {
                    let entries = counts.impacts(impacts, document, vector)?;
                    output.put(|out| write_impacts_by_key(out, &document.id, &content, &entries, &name))
                }
            }
        })?;
        output.finish()
    }

    /// Writes the matrix and its ids. The ids appear first, so that a matrix that is there has its own.
    fn csr(&mut self) -> Result<()> {
        let ids_path = ids_beside(&self.args.output);
        let mut output = Output::open(Some(&self.args.output), self.args.overwrite)?;
        let mut ids = Output::open(Some(&ids_path), self.args.overwrite)?;
        let columns = self.source.dimensions().unwrap_or_default();
        let mut matrix = CsrWriter::new(self.folder(), columns.into())?;
        self.each(|_, document, vector| {
            expect_one_line(&document.id, &ids_path)?;
            ids.write_bytes(format!("{}\n", document.id).as_bytes())?;
            Ok(matrix.add(vector)?)
        })?;
        output.put(|out| matrix.finish(out).map(drop))?;
        ids.finish()?;
        output.finish()
    }

    fn ciff(&mut self) -> Result<()> {
        let name = self.names()?;
        let Some(dimensions) = self.source.dimensions() else {
            return Err(bad_input(
                format!("{}: the number of dimensions is not known, and ciff needs it", self.args.source.display()),
                "give the model that made the vectors with --model",
            ));
        };
        let impacts = self.args.impacts.or(Impacts::new(DEFAULT_SCALE)).expect("the default scale is above 0");
        let mut output = Output::open(Some(&self.args.output), self.args.overwrite)?;
        let mut writer = CiffWriter::new(self.folder(), (0..dimensions).map(name).collect())?;
        self.each(|counts, document, vector| {
            Ok(writer.add(&document.id, &counts.impacts(impacts, document, vector)?)?)
        })?;
        let description = serde_json::json!({
            "made_by": concat!("splade ", env!("CARGO_PKG_VERSION")),
            "impact": "weight times scale, rounded",
            "scale": impacts.scale(),
            "terms": if self.args.keys == Some(ExportKeys::Tokens) { "tokens" } else { "dimensions" },
            "model": self.source.fingerprints().map(|(model, _)| model),
            "tokenizer": self.source.fingerprints().map(|(_, tokenizer)| tokenizer),
        });
        output.put(|out| writer.finish(&description.to_string(), out).map(drop))?;
        output.finish()
    }

    fn tables(&mut self) -> Result<()> {
        let path = &self.args.output;
        refuse_existing(path, self.args.overwrite)?;
        refuse_other(path)?;
        let folders = NewFolders::above(path);
        let folder = AtomicFolder::create(path)?;
        let notes = self.source.fingerprints().into_iter().flat_map(|(model, tokenizer)| {
            [("splade.model", model), ("splade.tokenizer", tokenizer)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        });
        let mut tables = PostingTables::new(folder.path(), notes.collect())?;
        self.each(|_, document, vector| {
            let fields = (!document.other.is_empty()).then(|| serde_json::to_string(&document.other)).transpose()?;
            let row = DocumentRow {
                id: &document.id,
                title: document.title.as_deref(),
                text: Some(&*document.text).filter(|text| !text.is_empty()),
                fields: fields.as_deref(),
            };
            Ok(tables.add(&row, vector)?)
        })?;
        let vocabulary = self.source.vocabulary();
        tables.finish(|dim| vocabulary?.token(dim))?;
        folder.commit()?;
        folders.keep();
        Ok(())
    }

    /// Function from a dimension to its name in the output.
    fn names(&self) -> Result<impl Fn(u32) -> String + use<>> {
        let vocabulary = match self.args.keys {
            None | Some(ExportKeys::Ids) => None,
            Some(ExportKeys::Tokens) => Some(self.source.vocabulary().cloned().ok_or_else(|| {
                bad_input(
                    format!("{}: the tokens are not known", self.args.source.display()),
                    "give the model that made the vectors with --model",
                )
            })?),
        };
        Ok(move |dim: u32| match &vocabulary {
            None => dim.to_string(),
            Some(vocabulary) => vocabulary.token(dim).unwrap_or_else(|| format!("[{dim}]")),
        })
    }

    /// Folder of the output, for temporary files.
    fn folder(&self) -> &Path {
        let parent = self.args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }

    /// Calls `write` with every document and its vector.
    fn each(&mut self, mut write: impl FnMut(&mut Counts, &StoredDocument, &SparseVector) -> Result<()>) -> Result<()> {
        for row in self.source.rows()? {
            interrupt::check()?;
            let (document, vector) = row?;
            self.counts.documents += 1;
            self.counts.empty += u64::from(vector.is_empty());
            self.counts.entries += vector.active_dims() as u64;
            write(&mut self.counts, &document, &vector)?;
            self.bar.inc(1);
        }
        Ok(())
    }
}

/// Path of the ids of a matrix: `vectors.csr.ids.txt`.
fn ids_beside(matrix: &Path) -> PathBuf {
    let mut path = matrix.as_os_str().to_owned();
    path.push(".ids.txt");
    path.into()
}

/// Refuses an id that a file of one id a line cannot hold.
fn expect_one_line(id: &str, path: &Path) -> Result<()> {
    if id.contains(['\n', '\r']) {
        return Err(bad_input(
            format!("{}: the id {id:?} has a line break, and the file has one id a line", path.display()),
            "use another format",
        ));
    }
    Ok(())
}

/// Refuses to replace a folder that is not an output of this command: it may have been given by mistake.
fn refuse_other(folder: &Path) -> Result<()> {
    if folder.exists() && !folder.join("postings.parquet").is_file() {
        return Err(bad_input(
            format!("{}: is there and has no postings.parquet, so it is not replaced", folder.display()),
            "choose another --output, or remove it yourself",
        ));
    }
    Ok(())
}

/// Numbers of an export.
#[derive(Debug, Default)]
struct Counts {
    documents: u64,
    /// documents without entries
    empty: u64,
    entries: u64,
    /// entries whose impact is 0
    zero: u64,
}

impl Counts {
    /// Impacts of a vector; counts those that are 0.
    fn impacts(
        &mut self,
        impacts: Impacts,
        document: &StoredDocument,
        vector: &SparseVector,
    ) -> Result<Vec<(u32, u32)>> {
        let kept = impacts.of(vector).map_err(|error| {
            bad_input(
                format!("document {}: {error}", document.id),
                "use a format with weights: jsonl without --impacts, csr, parquet-postings",
            )
        })?;
        self.zero += (vector.active_dims() - kept.len()) as u64;
        Ok(kept)
    }

    fn report(&self, args: &ExportVectorsArgs, seconds: f64) {
        let Self { documents, empty, entries, zero } = self;
        tracing::info!(
            "{}: {documents} documents, {} entries in {seconds:.1} s",
            args.output.display(),
            entries - zero
        );
        if *documents == 0 {
            tracing::warn!("{}: there are no documents in it", args.source.display());
        }
        if *empty > 0 {
            tracing::warn!("{empty} documents have no entries");
        }
        if *zero > 0 {
            tracing::warn!(
                "{zero} of {entries} entries become 0 and are left out: a larger --impacts keeps more of them"
            );
        }
    }
}

/// Creates a progress bar for the documents of a source.
impl Source {
    fn progress(&self) -> ProgressBar {
        console::progress("exporting", self.count())
    }
}
