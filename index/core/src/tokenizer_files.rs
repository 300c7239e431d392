//! [`resolve`]: the tokenizer that transformers loads from the files of a folder.
//!
//! Several files of a model folder describe one tokenizer, and they may contradict each other. The rules are those of
//! `AutoTokenizer` in transformers 5.24; `tests/fixtures/tokenizers` holds its token ids for every rule.
//!
//! 1. The class is named by `tokenizer_config.json`, else by `config.json`, else follows from `model_type`.
//! 2. The classes of BERT, RoBERTa and XLM-RoBERTa take the vocabulary of `tokenizer.json` and build everything else from
//!    the keys of `tokenizer_config.json` and their defaults. Without `tokenizer.json` they read the files of older models.
//! 3. Every other class takes `tokenizer.json` as it is.
//! 4. Added and special tokens of the other files are added last, with their flags.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, Tokenizer, TruncationDirection, TruncationParams};

use crate::vocabulary::{check_ids, frame, tokenizer_error};
use crate::{Error, Result};

/// Names of the files that decide a tokenizer, in the order in which they are looked at. No class here reads
/// `spiece.model`: it is copied with the others and named where a tokenizer is missing.
pub const TOKENIZER_SOURCES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
];

/// Names of files any of which is a tokenizer, alone or with the others of [`TOKENIZER_SOURCES`].
pub const TOKENIZER_VOCABULARIES: [&str; 3] = ["tokenizer.json", "vocab.txt", "vocab.json"];

/// Contents of the [`TOKENIZER_SOURCES`] of a folder, by name.
pub type TokenizerFiles = BTreeMap<String, Vec<u8>>;

/// A tokenizer with the `tokenizer.json` that holds all of it.
pub(crate) struct Resolved {
    pub(crate) tokenizer: Tokenizer,
    /// the bytes of the file where nothing contradicts it
    pub(crate) json: Vec<u8>,
    /// one line for every part that differs from the file
    pub(crate) overrides: Vec<String>,
}

/// The tokenizer that transformers loads from `files`.
pub(crate) fn resolve(files: &TokenizerFiles) -> Result<Resolved> {
    let config = Config::read(files)?;
    let file = files.get("tokenizer.json").map(|json| File::parse(json)).transpose()?;
    // a tokenizer is written with every id up to its largest, so a huge one is refused first
    file.as_ref().map_or(Ok(()), |file| check_ids(&file.tokenizer))?;
    let tokens = Tokens::read(files, config.keys.clone(), file.as_ref().map(|file| &file.parts))?;
    let before = file.as_ref().map(|file| parts(&file.tokenizer, file.parts.model.unk_id));
    let side = file.as_ref().and_then(|file| file.tokenizer.get_truncation()).map(|truncation| truncation.direction);
    let unk_id = file.as_ref().and_then(|file| file.parts.model.unk_id);
    let (built, unk_id) = match (config.class, file) {
        (Class::Plain, Some(file)) => (file.tokenizer, unk_id),
        (Class::Plain, None) => return Err(nothing_to_load(files)),
        (Class::Bert, file) => (bert(files, file.as_ref(), &config, &tokens)?, None),
        (Class::Roberta, file) => (roberta(files, file.as_ref(), &config)?, None),
        (Class::XlmRoberta, file) => (xlm_roberta(files, file.as_ref(), &config)?, Some(XLM_ROBERTA_UNK)),
    };
    let tokenizer = finish(built, &config, &tokens, side)?;
    check_ids(&tokenizer)?;
    let overrides = before.map(|before| differences(before, parts(&tokenizer, unk_id))).unwrap_or_default();
    let json = match files.get("tokenizer.json") {
        Some(json) if overrides.is_empty() => json.clone(),
        _ => tokenizer.to_string(false).map_err(tokenizer_error)?.into_bytes(),
    };
    Ok(Resolved { tokenizer, json, overrides })
}

/// A `tokenizer.json`, with the parts of it that a `Tokenizer` does not return.
struct File {
    tokenizer: Tokenizer,
    parts: FileParts,
}

#[derive(Deserialize)]
struct FileParts {
    #[serde(default)]
    added_tokens: Vec<Value>,
    #[serde(default)]
    model: ModelParts,
}

#[derive(Deserialize, Default)]
struct ModelParts {
    unk_id: Option<usize>,
}

impl File {
    fn parse(json: &[u8]) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(json).map_err(tokenizer_error)?;
        let parts = serde_json::from_slice(json).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(Self { tokenizer, parts })
    }
}

/// Classes of transformers that differ in how they load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bert,
    Roberta,
    XlmRoberta,
    /// `PreTrainedTokenizerFast`, now `TokenizersBackend`
    Plain,
}

impl Class {
    fn named(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" => Self::Bert,
            "RobertaTokenizer" => Self::Roberta,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            _ => Self::Plain,
        }
    }

    /// Class of a family without a class name; `None` for families that transformers lacks.
    fn of_family(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" | "distilbert" | "electra" => Some(Self::Bert),
            "roberta" => Some(Self::Roberta),
            "xlm-roberta" => Some(Self::XlmRoberta),
            "modernbert" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// `tokenizer_config.json`, and the class that reads it.
struct Config {
    class: Class,
    keys: Map<String, Value>,
}

impl Config {
    fn read(files: &TokenizerFiles) -> Result<Self> {
        let keys = object(files, "tokenizer_config.json")?;
        // a folder of a query table has another kind of config.json
        let model = object(files, "config.json")?;
        let text = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text(&keys, "tokenizer_class").or_else(|| text(&model, "tokenizer_class"));
        let family = text(&model, "model_type").and_then(|family| Class::of_family(&family));
        let class = match (name, family) {
            (_, Some(Class::Plain)) => Class::Plain,
            (Some(name), _) => Class::named(&name),
            (None, family) => family.unwrap_or(Class::Plain),
        };
        if keys.get("split_special_tokens") == Some(&Value::Bool(true)) {
            return Err(Error::invalid(
                "tokenizer_config.json: split_special_tokens is not supported",
                "set it to false, or remove it",
            ));
        }
        Ok(Self { class, keys })
    }

    /// A boolean key; null is `default` too.
    fn flag(&self, key: &str, default: Option<bool>) -> Result<Option<bool>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => {
                Err(Error::invalid(format!("tokenizer_config.json: {key} is {other}"), "give true or false"))
            }
        }
    }

    fn truncation_side(&self) -> Result<Option<TruncationDirection>> {
        match self.keys.get("truncation_side").map(|side| side.as_str()) {
            None => Ok(None),
            Some(Some("right")) => Ok(Some(TruncationDirection::Right)),
            Some(Some("left")) => Ok(Some(TruncationDirection::Left)),
            Some(_) => Err(Error::invalid("tokenizer_config.json: truncation_side is no side", "give left or right")),
        }
    }
}

fn object(files: &TokenizerFiles, name: &str) -> Result<Map<String, Value>> {
    let Some(bytes) = files.get(name) else { return Ok(Map::new()) };
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("{name}: not a JSON object: {error}"), "restore the file"))
}

/// The keys of special tokens that every class has, in the order in which they are added.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Added and special tokens of all files.
struct Tokens {
    /// added tokens by their id in a file; their id in the tokenizer may differ
    added: BTreeMap<u32, Token>,
    /// special tokens by their key; `None` if the key is null
    named: Vec<(String, Option<Token>)>,
    /// special tokens without a key
    extra: Vec<Token>,
}

#[derive(Debug, Clone)]
struct Token {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    /// follows `special` where it is not given
    normalized: Option<bool>,
    special: bool,
}

impl Token {
    fn special(content: &str) -> Self {
        let content = content.to_owned();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special: true }
    }

    /// A text, or an object with flags.
    fn read(value: &Value) -> Option<Self> {
        if let Some(content) = value.as_str() {
            return Some(Self::special(content));
        }
        let flag = |key: &str| value.get(key).and_then(Value::as_bool);
        Some(Self {
            content: value.get("content")?.as_str()?.to_owned(),
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized"),
            special: flag("special").unwrap_or(false),
        })
    }

    fn to_added(&self, special: bool) -> AddedToken {
        let special = self.special || special;
        AddedToken::from(self.content.clone(), special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!special))
    }
}

impl Tokens {
    fn read(files: &TokenizerFiles, mut keys: Map<String, Value>, file: Option<&FileParts>) -> Result<Self> {
        if !keys.get("extra_special_tokens").is_some_and(is_filled)
            && let Some(tokens) = keys.remove("additional_special_tokens")
        {
            keys.insert("extra_special_tokens".into(), tokens);
        }
        let own = |key: &str| key.ends_with("_token") && !NAMED.contains(&key);
        let mut explicit: Vec<(String, Value)> = Vec::new();
        for (key, value) in &keys {
            if own(key) && value.is_string() {
                explicit.push((key.clone(), value.clone()));
            }
        }
        keys.retain(|key, value| !(own(key) && value.is_string()));
        take_table(&mut keys, &mut explicit);
        let mut added = BTreeMap::new();
        if let Some(decoder) = keys.get("added_tokens_decoder") {
            for (id, value) in decoder.as_object().into_iter().flatten() {
                let (id, token) = id.parse().ok().zip(Token::read(value)).ok_or_else(|| {
                    Error::invalid(format!("tokenizer_config.json: added token {id}: {value}"), "restore the file")
                })?;
                added.insert(id, token);
            }
        } else {
            merge_special_tokens_map(files, &mut keys)?;
            take_table(&mut keys, &mut explicit);
            added = older_added_tokens(files, &keys, file)?;
        }
        let mut named: Vec<(String, Option<Token>)> = Vec::new();
        for key in NAMED {
            if let Some(value) = keys.get(key) {
                named.push((key.to_owned(), Token::read(value)));
            }
        }
        let typed = |value: &Value| value.is_string() || value.get("__type").is_some();
        let automatic = keys.iter().filter(|(key, value)| own(key) && typed(value));
        let mut own_tokens: Map<String, Value> = automatic.map(|(key, value)| (key.clone(), value.clone())).collect();
        own_tokens.extend(explicit);
        named.extend(own_tokens.iter().map(|(key, value)| (key.clone(), Token::read(value))));
        let extra = keys.get("extra_special_tokens").or_else(|| keys.get("additional_special_tokens"));
        let extra = extra.and_then(Value::as_array).into_iter().flatten().filter_map(Token::read).collect();
        Ok(Self { added, named, extra })
    }

    /// Content of a named token: as given, or `default`.
    fn named(&self, key: &str, default: &str) -> Result<String> {
        match self.named.iter().find(|(name, _)| name == key) {
            None => Ok(default.to_owned()),
            Some((_, Some(token))) => Ok(token.content.clone()),
            Some((_, None)) => Err(Error::invalid(
                format!("tokenizer_config.json: {key} is null, but its class needs one"),
                format!("give a token, for instance {default:?}"),
            )),
        }
    }

    /// Tokens that are added to `tokenizer`, in order.
    fn to_add(&self, tokenizer: &Tokenizer, defaults: &[(&str, &str)]) -> Vec<AddedToken> {
        let mut named: Vec<Token> = Vec::new();
        for key in NAMED {
            match self.named.iter().find(|(name, _)| name == key) {
                Some((_, token)) => named.extend(token.clone()),
                None => {
                    let default = defaults.iter().find(|(name, _)| *name == key);
                    named.extend(default.map(|(_, content)| Token::special(content)));
                }
            }
        }
        let own = self.named.iter().filter(|(name, _)| !NAMED.contains(&name.as_str()));
        named.extend(own.filter_map(|(_, token)| token.clone()));
        let decoder = tokenizer.get_added_tokens_decoder();
        let known: HashSet<&str> = decoder
            .values()
            .map(|token| token.content.as_str())
            .chain(self.added.values().map(|token| token.content.as_str()))
            .collect();
        let new = named.iter().chain(&self.extra).filter(|token| !known.contains(token.content.as_str()));
        let is_named = |token: &Token| named.iter().any(|other| other.content == token.content);
        self.added.values().chain(new).map(|token| token.to_added(is_named(token))).collect()
    }
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => false,
    }
}

/// Moves the entries of an `extra_special_tokens` that is a table to the named tokens.
fn take_table(keys: &mut Map<String, Value>, named: &mut Vec<(String, Value)>) {
    if keys.get("extra_special_tokens").is_some_and(Value::is_object)
        && let Some(Value::Object(table)) = keys.remove("extra_special_tokens")
    {
        named.extend(table);
    }
}

/// `special_tokens_map.json` overrides the keys of `tokenizer_config.json`.
fn merge_special_tokens_map(files: &TokenizerFiles, keys: &mut Map<String, Value>) -> Result<()> {
    for (key, mut value) in object(files, "special_tokens_map.json")? {
        if let Value::Object(token) = &mut value
            && key != "extra_special_tokens"
        {
            token.insert("special".into(), true.into());
            token.insert("__type".into(), "AddedToken".into());
        }
        if key == "extra_special_tokens"
            && let Value::Array(new) = &value
        {
            let mut all = keys.get(&key).and_then(Value::as_array).cloned().unwrap_or_default();
            all.extend(new.iter().filter(|token| !all.contains(token)).cloned().collect::<Vec<_>>());
            value = Value::Array(all);
        }
        keys.insert(key, value);
    }
    Ok(())
}

/// `added_tokens.json`, then the added tokens of `tokenizer.json`, which win where both give an id.
fn older_added_tokens(
    files: &TokenizerFiles,
    keys: &Map<String, Value>,
    file: Option<&FileParts>,
) -> Result<BTreeMap<u32, Token>> {
    let extra = keys.get("extra_special_tokens").and_then(Value::as_array).into_iter().flatten();
    let named = NAMED.iter().filter_map(|key| keys.get(*key));
    let special: HashSet<String> = named.chain(extra).filter_map(Token::read).map(|token| token.content).collect();
    let mut added = BTreeMap::new();
    for (content, id) in object(files, "added_tokens.json")? {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            Error::invalid(format!("added_tokens.json: the id of {content:?} is {id}"), "restore the file")
        })?;
        let is_special = special.contains(&content);
        let token = Token { special: is_special, normalized: Some(!is_special), ..Token::special(&content) };
        added.insert(id, token);
    }
    for value in file.map(|file| file.added_tokens.as_slice()).unwrap_or_default() {
        let id = value.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let (id, token) = id
            .zip(Token::read(value))
            .ok_or_else(|| Error::invalid(format!("tokenizer.json: added token {value}"), "restore the file"))?;
        added.insert(id, token);
    }
    Ok(added)
}

/// Defaults of the named tokens of BERT's class.
const BERT_TOKENS: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// Defaults of the named tokens of RoBERTa's and XLM-RoBERTa's classes.
const ROBERTA_TOKENS: [(&str, &str); 7] = [
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("sep_token", "</s>"),
    ("cls_token", "<s>"),
    ("unk_token", "<unk>"),
    ("pad_token", "<pad>"),
    ("mask_token", "<mask>"),
];

fn bert(files: &TokenizerFiles, file: Option<&File>, config: &Config, tokens: &Tokens) -> Result<Tokenizer> {
    let unk_token = tokens.named("unk_token", "[UNK]")?;
    let model = match file.map(|file| file.tokenizer.get_model()) {
        Some(ModelWrapper::WordPiece(model)) => {
            let mut model = model.clone();
            model.unk_token = unk_token;
            model.continuing_subword_prefix = "##".into();
            model.max_input_chars_per_word = 100;
            model
        }
        Some(other) => return Err(other_model("BertTokenizer", "WordPiece", other)),
        None => {
            let bytes = source(files, "vocab.txt")?;
            let vocab = WordPiece::read_bytes(bytes).map_err(tokenizer_error)?;
            WordPiece::builder().vocab(vocab).unk_token(unk_token).build().map_err(tokenizer_error)?
        }
    };
    let mut tokenizer = Tokenizer::new(model);
    let lowercase = config.flag("do_lower_case", Some(true))?.unwrap_or(true);
    let chinese = config.flag("tokenize_chinese_chars", Some(true))?.unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, config.flag("strip_accents", None)?, lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(tokenizer_error)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    Ok(tokenizer)
}

fn roberta(files: &TokenizerFiles, file: Option<&File>, config: &Config) -> Result<Tokenizer> {
    let model = match file.map(|file| file.tokenizer.get_model()) {
        Some(ModelWrapper::BPE(model)) if is_bare(model) => model.clone(),
        Some(ModelWrapper::BPE(model)) => {
            let mut json = serde_json::to_value(model).map_err(json_error)?;
            for key in ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
                json[key] = Value::Null;
            }
            for key in ["fuse_unk", "byte_fallback", "ignore_merges"] {
                json[key] = false.into();
            }
            // the model borrows its strings, which a `Value` does not lend
            serde_json::from_str(&json.to_string()).map_err(json_error)?
        }
        Some(other) => return Err(other_model("RobertaTokenizer", "BPE", other)),
        None => {
            let vocab: Map<String, Value> = object(files, "vocab.json")?;
            let merges = String::from_utf8_lossy(source(files, "merges.txt")?);
            source(files, "vocab.json")?;
            let id = |(token, id): (String, Value)| Some((token, u32::try_from(id.as_u64()?).ok()?));
            let vocab: std::collections::HashMap<String, u32> = vocab.into_iter().filter_map(id).collect();
            let pair = |(at, line): (usize, &str)| match line.split(' ').collect::<Vec<_>>().as_slice() {
                [left, right] => Ok(((*left).to_owned(), (*right).to_owned())),
                _ => Err(Error::invalid(format!("merges.txt, line {}: not two tokens", at + 1), "restore the file")),
            };
            let lines = merges.lines().enumerate().filter(|(_, line)| !line.starts_with("#version"));
            let merges = lines.map(pair).collect::<Result<Vec<_>>>()?;
            let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
            BPE::builder().vocab_and_merges(vocab, merges).build().map_err(tokenizer_error)?
        }
    };
    let mut tokenizer = Tokenizer::new(model);
    let prefix = config.flag("add_prefix_space", Some(false))?.unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// True for a model without what RoBERTa's class does not keep.
fn is_bare(model: &BPE) -> bool {
    let empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    model.dropout.is_none()
        && model.unk_token.is_none()
        && empty(&model.continuing_subword_prefix)
        && empty(&model.end_of_word_suffix)
        && !(model.fuse_unk || model.byte_fallback || model.ignore_merges)
}

/// The id of the unknown token that XLM-RoBERTa's class has fixed.
const XLM_ROBERTA_UNK: usize = 3;

fn xlm_roberta(files: &TokenizerFiles, file: Option<&File>, config: &Config) -> Result<Tokenizer> {
    let Some(file) = file else {
        let found = if files.contains_key("sentencepiece.bpe.model") {
            "sentencepiece.bpe.model is there, but no tokenizer.json"
        } else {
            "no tokenizer.json"
        };
        return Err(Error::invalid(format!("{found}: XLMRobertaTokenizer cannot be loaded"), CONVERT));
    };
    let model = match file.tokenizer.get_model() {
        ModelWrapper::Unigram(model) if file.parts.model.unk_id == Some(XLM_ROBERTA_UNK) && !model.byte_fallback() => {
            model.clone()
        }
        ModelWrapper::Unigram(model) => {
            Unigram::from(model.iter().cloned().collect(), Some(XLM_ROBERTA_UNK), false).map_err(tokenizer_error)?
        }
        other => return Err(other_model("XLMRobertaTokenizer", "Unigram", other)),
    };
    let mut tokenizer = Tokenizer::new(model);
    let stages = match file.tokenizer.get_normalizer() {
        Some(NormalizerWrapper::Sequence(stages)) => stages.as_ref(),
        Some(stage) => std::slice::from_ref(stage),
        None => &[],
    };
    let table = stages.iter().find(|stage| matches!(stage, NormalizerWrapper::Precompiled(_)));
    tokenizer.with_normalizer(table.cloned()).map_err(tokenizer_error)?;
    let prefix = config.flag("add_prefix_space", Some(true))?.unwrap_or(true);
    let scheme = if prefix { PrependScheme::Always } else { PrependScheme::Never };
    let metaspace = Metaspace::new('▁', scheme, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), metaspace.clone().into()])));
    tokenizer.with_decoder(Some(DecoderWrapper::Metaspace(metaspace)));
    Ok(tokenizer)
}

/// Adds tokens, post-processor and truncation side to what a class built.
fn finish(
    mut tokenizer: Tokenizer,
    config: &Config,
    tokens: &Tokens,
    side: Option<TruncationDirection>,
) -> Result<Tokenizer> {
    let defaults: &[_] = match config.class {
        Class::Bert => &BERT_TOKENS,
        Class::Roberta | Class::XlmRoberta => &ROBERTA_TOKENS,
        Class::Plain => &[],
    };
    let new = tokens.to_add(&tokenizer, defaults);
    tokenizer.add_tokens(new).map_err(tokenizer_error)?;
    let named = |key: &str, default: &str| -> Result<(String, u32)> {
        let token = tokens.named(key, default)?;
        let id = tokenizer.token_to_id(&token);
        let id = id.ok_or_else(|| Error::invalid(format!("{key} {token:?} has no id"), "give another token"))?;
        Ok((token, id))
    };
    let template = |pieces: Vec<String>, special: Vec<(String, u32)>| {
        let template = TemplateProcessing::builder()
            .try_single(pieces)
            .map_err(Error::Tokenizer)?
            .special_tokens(special)
            .build()
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok::<_, Error>(PostProcessorWrapper::from(template))
    };
    let processor = match config.class {
        Class::Bert => {
            let (cls, sep) = (named("cls_token", "[CLS]")?, named("sep_token", "[SEP]")?);
            let pieces = vec![cls.0.clone(), "$A".into(), sep.0.clone()];
            Some(template(pieces, vec![cls, sep])?)
        }
        Class::Roberta => {
            let (cls, sep) = (named("cls_token", "<s>")?, named("sep_token", "</s>")?);
            Some(RobertaProcessing::new(sep, cls).into())
        }
        Class::XlmRoberta => {
            let (bos, eos) = (named("bos_token", "<s>")?, named("eos_token", "</s>")?);
            let pieces = vec![bos.0.clone(), "$A".into(), eos.0.clone()];
            Some(template(pieces, vec![bos, eos])?)
        }
        Class::Plain => None,
    };
    if processor.is_some() {
        tokenizer.with_post_processor(processor);
    }
    let direction = config.truncation_side()?.or(side).unwrap_or(TruncationDirection::Right);
    let truncation = (side.is_some() || direction == TruncationDirection::Left)
        .then(|| TruncationParams { direction, ..Default::default() });
    tokenizer.with_truncation(truncation).map_err(tokenizer_error)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Parts of a tokenizer that decide token ids, except its vocabulary.
fn parts(tokenizer: &Tokenizer, unk_id: Option<usize>) -> [(&'static str, Value); 6] {
    let left = tokenizer.get_truncation().is_some_and(|truncation| truncation.direction == TruncationDirection::Left);
    [
        ("model", model_settings(tokenizer.get_model(), unk_id)),
        ("normalizer", serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default()),
        ("pre_tokenizer", pre_tokenizer(tokenizer)),
        ("special tokens around a text", around(tokenizer)),
        ("added tokens", added(tokenizer)),
        ("truncation side", if left { "left" } else { "right" }.into()),
    ]
}

/// One line for every part that is not the same in `file` and in `effective`.
fn differences(file: [(&'static str, Value); 6], effective: [(&'static str, Value); 6]) -> Vec<String> {
    let pairs = file.into_iter().zip(effective).filter(|((_, from), (_, to))| from != to);
    let line = |((part, from), (_, to)): ((&str, Value), (&str, Value))| {
        format!("{part}: {} in tokenizer.json, {} by its class", short(&from), short(&to))
    };
    pairs.map(line).collect()
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Settings of a model that the classes change, without its vocabulary.
fn model_settings(model: &ModelWrapper, unk_id: Option<usize>) -> Value {
    match model {
        ModelWrapper::WordPiece(model) => serde_json::json!({
            "unk_token": model.unk_token, "continuing_subword_prefix": model.continuing_subword_prefix,
            "max_input_chars_per_word": model.max_input_chars_per_word,
        }),
        ModelWrapper::BPE(model) if is_bare(model) => Value::Null,
        ModelWrapper::BPE(model) => serde_json::json!({
            "dropout": model.dropout, "unk_token": model.unk_token, "fuse_unk": model.fuse_unk,
            "byte_fallback": model.byte_fallback, "ignore_merges": model.ignore_merges,
            "continuing_subword_prefix": model.continuing_subword_prefix, "end_of_word_suffix": model.end_of_word_suffix,
        }),
        ModelWrapper::Unigram(model) => serde_json::json!({"unk_id": unk_id, "byte_fallback": model.byte_fallback()}),
        ModelWrapper::WordLevel(_) => Value::Null,
    }
}

/// The pre-tokenizer without what only moves offsets.
fn pre_tokenizer(tokenizer: &Tokenizer) -> Value {
    let mut json = serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or_default();
    if let Some(PreTokenizerWrapper::ByteLevel(_)) = tokenizer.get_pre_tokenizer() {
        json["trim_offsets"] = Value::Null;
    }
    json
}

/// Special tokens before and after a text; the whole post-processor where that is not all.
fn around(tokenizer: &Tokenizer) -> Value {
    match frame(tokenizer) {
        Some((before, after)) => serde_json::json!([before, after]),
        None => serde_json::to_value(tokenizer.get_post_processor()).unwrap_or_default(),
    }
}

fn added(tokenizer: &Tokenizer) -> Value {
    let tokens: BTreeMap<u32, AddedToken> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    serde_json::to_value(tokens).unwrap_or_default()
}

fn source<'a>(files: &'a TokenizerFiles, name: &str) -> Result<&'a [u8]> {
    let found = files.get(name).map(Vec::as_slice);
    found.ok_or_else(|| Error::invalid(format!("neither tokenizer.json nor {name}"), CONVERT))
}

fn nothing_to_load(files: &TokenizerFiles) -> Error {
    let old: Vec<&str> = TOKENIZER_SOURCES[5..].iter().copied().filter(|name| files.contains_key(*name)).collect();
    match old.as_slice() {
        [] => Error::invalid("no tokenizer.json", "take the tokenizer.json that the model was trained with"),
        found => Error::invalid(
            format!("no tokenizer.json, and no tokenizer_class that reads {}", found.join(" and ")),
            format!("name it in tokenizer_config.json, for instance BertTokenizer; or {CONVERT}"),
        ),
    }
}

/// Advice for a folder without `tokenizer.json`.
const CONVERT: &str =
    "write a tokenizer.json with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";

fn other_model(class: &str, expected: &str, found: &ModelWrapper) -> Error {
    let found = match found {
        ModelWrapper::BPE(_) => "BPE",
        ModelWrapper::Unigram(_) => "Unigram",
        ModelWrapper::WordLevel(_) => "WordLevel",
        ModelWrapper::WordPiece(_) => "WordPiece",
    };
    Error::invalid(
        format!("tokenizer_class {class} reads {expected}, but tokenizer.json holds {found}"),
        "write \"tokenizer_class\": \"PreTrainedTokenizerFast\" into tokenizer_config.json to use tokenizer.json as it is",
    )
}

fn json_error(error: serde_json::Error) -> Error {
    Error::Tokenizer(error.to_string())
}
