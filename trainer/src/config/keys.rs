//! [`KEYS`]: every key of the config, its default, and what it does or why it has no effect here.
//!
//! The one place to add a key: the parser knows the keys of this table and no others, takes defaults from it, and names
//! the keys that have no effect; `configs/KEYS.md` is this table as a page. The parser then reads the key in `resolve.rs`.

/// A key of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The full path. `*` stands for the name of a data set; a data set's name for a built-in set.
    pub path: &'static str,
    /// The default as JSON; empty if there is none, or if it follows from other keys as `meaning` says.
    pub default: &'static str,
    /// The meaning of the value.
    pub meaning: &'static str,
    /// Effect of the key here.
    pub effect: Effect,
}

/// The effect of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does what its meaning says.
    Works,
    /// It has no effect, for this reason.
    None(&'static str),
    /// It has no effect unless it is off (`false`, 0, an empty list), which is what happens anyway, for this reason.
    OnlyOff(&'static str),
}

const fn key(path: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { path, default, meaning, effect: Effect::Works }
}

const fn unused(path: &'static str, default: &'static str, meaning: &'static str, reason: &'static str) -> Key {
    Key { path, default, meaning, effect: Effect::None(reason) }
}

const fn only_off(path: &'static str, default: &'static str, meaning: &'static str, reason: &'static str) -> Key {
    Key { path, default, meaning, effect: Effect::OnlyOff(reason) }
}

// Reasons that several keys share; keys with the same reason are named in one line.
const ONLY_CSR: &str = "only architecture `csr` has it, which this toolkit does not train";
const ONLY_BF16: &str =
    "gradients underflow in float16 without a scaled loss, which this toolkit does not have: use `bf16`";
const ONLY_F32: &str = "products in f32 stay f32 on every device: use `bf16` for faster ones";

/// Every key, in the order of a config file.
#[rustfmt::skip] // one line a key
pub const KEYS: &[Key] = &[
    key("model.base_model", "", "Hub id or folder of the model to start from; required unless `model.init` is given"),
    key("model.architecture", "\"inference-free-splade\"", "`inference-free-splade` (queries by a table of weights), or `splade` (one network for both sides); `csr` is refused"),
    key("model.pooling_strategy", "\"max\"", "`max` or `sum` over the tokens of a text"),
    key("model.activation_function", "\"relu\"", "`relu`: log(1 + relu(logit)); `log1p_relu`: the logarithm twice"),
    key("model.use_router", "", "true for `inference-free-splade`, false for `splade`, which it means where `architecture` is not given; a value that contradicts it is an error"),
    key("model.freeze_static_embedding", "false", "do not train the query table"),
    key("model.query_init", "\"ones\"", "query table before training: `ones`, `idf` (of the positives), or the path of an idf.json or safetensors file"),
    key("model.mlm_head", "", "NorBERT4 only: `published`, `raw-shifted`, `raw` or `soft-cap`; default: what a model trained here states, `soft-cap` for others"),
    key("model.patch_sigmoid_for_sparsity", "false", "the Python project's name of `mlm_head: raw-shifted`; without effect on a network without head modes"),
    key("model.ignored_config_keys", "[]", "keys of the base model's config.json that are not known here and do not change its forward pass"),
    key("model.load_pretrained_sparse_encoder", "false", "`base_model` is a finished sparse encoder, whose query table is kept"),
    key("model.init", "", "a new model instead of `base_model`"),
    key("model.init.architecture", "\"bert\"", "transformer family; `bert`"),
    key("model.init.hidden_size", "256", "width"),
    key("model.init.layers", "4", "number of layers"),
    key("model.init.heads", "4", "attention heads, a divisor of `hidden_size`"),
    key("model.init.intermediate_size", "", "width of the feed-forward layers; default: 4 times `hidden_size`"),
    key("model.init.vocab_size", "12000", "number of terms of a tokenizer that is trained"),
    key("model.init.tokenizer", "", "path of a tokenizer.json or its folder, or `{train_on: files, type: kind}`; default: one is trained on the texts of the data sets"),
    key("model.init.tokenizer.train_on", "[]", "files to train a tokenizer on; none: the texts of the data sets"),
    key("model.init.tokenizer.type", "\"wordpiece\"", "tokenizer that is trained: `wordpiece` (BERT), `bpe` (byte-level, RoBERTa; at least 261 terms) or `unigram` (SentencePiece, XLM-RoBERTa); all in lower case with accents"),
    unused("model.csr_k", "", "active dims of a CSR model", ONLY_CSR),
    unused("model.csr_k_aux", "", "active dims of the auxiliary loss of a CSR model", ONLY_CSR),
    unused("model.csr_hidden_dim", "", "width of a CSR model", ONLY_CSR),

    key("training.objective", "\"retrieval\"", "`retrieval`, or `mlm` (masked-language model on running text)"),
    key("training.output_dir", "", "folder of checkpoints `checkpoint-N`, of the result `final`, and of the log; required"),
    key("training.num_train_epochs", "1", "passes over the data; may be a fraction"),
    key("training.max_steps", "-1", "optimizer steps; above 0 it decides instead of `num_train_epochs`"),
    key("training.per_device_train_batch_size", "16", "examples of a micro-batch"),
    key("training.per_device_eval_batch_size", "16", "examples of a batch of the development sets"),
    key("training.gradient_accumulation_steps", "1", "micro-batches of an optimizer step"),
    key("training.learning_rate", "2e-5", "learning rate of the network"),
    key("training.query_learning_rate", "1e-3", "learning rate of the query table"),
    key("training.warmup_ratio", "0.1", "share of the steps over which learning rates rise; they then fall to 0"),
    key("training.weight_decay", "0.01", "decoupled weight decay of AdamW"),
    key("training.max_grad_norm", "1.0", "gradients are scaled down to this norm; 0 switches it off"),
    key("training.bf16", "false", "mixed precision on a CUDA or Metal device: products of matrices in bfloat16, weights, gradients and optimizer in f32; a CPU trains in f32 and says so"),
    only_off("training.fp16", "false", "mixed precision in float16", ONLY_BF16),
    key("training.max_seq_length", "256", "tokens of a document or query; longer texts are truncated"),
    key("training.batch_sampler", "\"no_duplicates\"", "`no_duplicates` (no text twice in a batch) or `batch_sampler` (a permutation in pieces)"),
    key("training.shuffle", "true", "false takes rows in the order of the files"),
    key("training.seed", "42", "seed of data order, dropout and new weights"),
    key("training.eval_strategy", "\"steps\"", "when to evaluate: `no`, `steps`, `epoch`"),
    key("training.eval_steps", "1000", "optimizer steps between evaluations, with `eval_strategy: steps`"),
    key("training.logging_steps", "100", "optimizer steps between log lines"),
    key("training.save_strategy", "\"steps\"", "when to save a checkpoint: `no`, `steps`, `epoch`"),
    key("training.save_steps", "1000", "optimizer steps between checkpoints, with `save_strategy: steps`"),
    key("training.save_total_limit", "1", "checkpoints kept, the best one always among them; 0 keeps all"),
    key("training.load_best_model_at_end", "", "the result is the best checkpoint; default: true where there are evaluations and checkpoints"),
    key("training.metric_for_best_model", "", "metric, with or without `eval_`; default: nDCG@10 of the evaluator, without one `eval_loss`, the sum of the losses on the development sets"),
    key("training.greater_is_better", "", "default: true, false for a loss"),
    key("training.early_stopping_patience", "", "evaluations without improvement after which training stops; default: never"),
    key("training.early_stopping_threshold", "0.0", "smallest difference that counts as an improvement"),
    key("training.push_to_hub", "false", "upload the model to the Hub, as `splade push` does, with the token of `HF_TOKEN` or of `hf auth login`"),
    key("training.hub_model_id", "", "repository to upload to: `owner/name`, or the name of one of your own; default: the name of `output_dir`"),
    key("training.hub_strategy", "\"every_save\"", "`end` uploads the result; `every_save` also the model of each checkpoint; `checkpoint` also all of the latest checkpoint, to the folder `last-checkpoint`, from which a training resumes; `all_checkpoints` also each checkpoint, to the folder of its name"),
    key("training.hub_private_repo", "false", "make the repository private; one that exists must be private already"),
    key("training.logging_dir", "\"runs\"", "folder of the TensorBoard event files, below `output_dir` unless absolute"),
    key("training.run_name", "", "name of the run in TensorBoard: event files go to the folder of this name in `logging_dir`"),
    key("training.report_to", "[\"tensorboard\"]", "`tensorboard`, `mlflow`, or `none`; log.jsonl is always written. `wandb` is named and has no effect"),
    key("training.dataloader_num_workers", "0", "threads that tokenize the next batches while a step runs, at most one a processor; 0: all threads tokenize a batch when its step begins. The result is the same"),
    key("training.dataloader_prefetch_factor", "2", "micro-batches to tokenize ahead for each of `dataloader_num_workers`: 2 times 4 workers are 8 micro-batches"),
    unused("training.dataloader_pin_memory", "", "page-locked memory for batches", "batches are never copied through pinned memory"),
    unused("training.torch_compile", "", "compile the model", "there is no Python graph to compile: the network is native code"),

    key("loss.type", "\"splade_loss\"", "ranking loss plus FLOPS regularizers"),
    key("loss.inner_loss", "\"sparse_multiple_negatives_ranking_loss\"", "ranking loss; also `sparse_margin_mse` and `sparse_distill_kl_div`, which need teacher scores in the data"),
    key("loss.query_regularizer_weight", "0.0", "weight of the FLOPS regularizer of queries; `null` leaves it out of the log too"),
    key("loss.document_regularizer_weight", "3e-3", "weight of the FLOPS regularizer of documents"),
    key("loss.use_document_regularizer_only", "false", "one regularizer over queries and documents together, with the document's weight"),
    key("loss.regularizer_schedule", "\"quadratic\"", "rise of the regularizer weights: `quadratic`, `linear` or `none`"),
    key("loss.regularizer_warmup_ratio", "0.3333333333333333", "share of the steps over which regularizer weights rise"),
    key("loss.document_regularizer_threshold", "", "documents with at most N active dims are not regularized; default: all are"),
    key("loss.scale", "1.0", "factor on the dot products of the ranking loss"),
    key("loss.mini_batch_size", "", "encode at most N texts at a time, a second time for the gradients: less memory, a slower step, the same loss over the whole batch (`CachedSpladeLoss`); default: all at once"),
    unused("loss.aux_loss_weight", "", "weight of the auxiliary loss of a CSR model", ONLY_CSR),

    key("mlm.masking", "\"token\"", "what `objective: mlm` masks together: `token` (BERT), `whole_word` (all tokens of a word), or `span` (several words in succession, as SpanBERT)"),
    key("mlm.probability", "0.2", "share of the tokens that are predicted; of these, 70 % become the mask token, 15 % another token, and 15 % stay"),
    key("mlm.span_p", "0.2", "p of the geometric distribution of the lengths of spans, in words: smaller means longer; with the defaults a span has 3.8 words on average"),
    key("mlm.span_max_length", "10", "words of the longest span"),

    key("datasets.sampling_strategy", "\"round_robin\"", "`round_robin` (one batch of each set in turn, until one is used up) or `proportional` (all batches of all sets)"),
    key("datasets.*.enabled", "true", "false leaves the set out"),
    key("datasets.*.files", "[]", "paths or globs of .jsonl, .jsonl.gz, .jsonl.zst, .tsv or .parquet files"),
    key("datasets.*.dev_files", "[]", "files of the development set; `split_ratio` is then not used"),
    key("datasets.*.source", "", "data set on the Hub, `owner/name` or `owner/name@revision`, whose parquet (or .jsonl, .tsv) files are downloaded; of a built-in set: instead of its usual one"),
    key("datasets.*.config", "", "configuration of `source`, where it has several"),
    key("datasets.*.split", "", "split of `source` to train on; default: `train`"),
    key("datasets.*.columns", "", "names of columns; default: found by their usual names"),
    key("datasets.*.columns.anchor", "", "query; usually anchor, query, question or sentence1"),
    key("datasets.*.columns.positive", "", "document that answers it; usually positive, pos, answer, context, document or sentence2"),
    key("datasets.*.columns.negative", "", "documents that do not, one column or several; usually negative or neg, or negative_1, negative_2, …; a cell may hold a list"),
    key("datasets.*.columns.label", "", "teacher scores or margins: a number or a list of numbers"),
    key("datasets.*.columns.text", "", "running text for `objective: mlm`; usually text"),
    key("datasets.*.filter", "", "`{column: [values]}`: rows are kept that have one of the values in every column"),
    key("datasets.*.max_samples", "", "the first N usable rows for training; default: all"),
    key("datasets.*.split_ratio", "", "`[train, dev, test]`: shares after a shuffle with the seed; default: all rows are for training. A set on the Hub with a development split of its own keeps that"),
    key("datasets.nli.languages", "", "languages; the set has Norwegian only"),
    key("datasets.ddsc.languages", "", "languages to keep; default: all"),
    key("datasets.ddsc.tasks", "", "tasks to keep; default: all"),
    key("datasets.scandi_qa.use_norquad", "true", "take `ltg/norquad`"),
    key("datasets.scandi_qa.use_openbookqa", "true", "take `ltg/noropenbookqa`, configuration nb"),
    key("datasets.scandi_qa.use_scandiqa", "true", "take `alexandrainst/scandi-qa`"),
    key("datasets.scandi_qa.use_supervised_da", "true", "take `jealk/supervised-da`"),
    key("datasets.scandi_qa.use_paws", "true", "take `NbAiLab/norwegian-paws-x`, configuration nb, pairs of label 1"),
    key("datasets.scandi_qa.scandiqa_languages", "[\"no\", \"da\", \"sv\"]", "languages of `alexandrainst/scandi-qa`"),
    key("datasets.scandi_qa.paws_data_dir", "", "folder of PAWS-X with the folder `nb` in it, used instead of the Hub if it exists"),

    key("evaluation.evaluator", "", "`sparse_ir` (folders in BEIR layout) or `sparse_nanobeir`; default: the losses on the development sets alone"),
    key("evaluation.nanobeir_datasets", "[\"msmarco\", \"nfcorpus\"]", "sets of `sparse_nanobeir`"),
    only_off("evaluation.mteb_tasks", "[]", "tasks to evaluate on", "tasks are named to the command eval-mteb, not evaluated while training"),
    key("evaluation.track_sparsity", "true", "log active dims, sparsity ratios and FLOPS with each evaluation"),
    key("evaluation.log_decoded_samples", "10", "sample texts whose top terms are shown at each evaluation"),
    key("evaluation.data", "[]", "folders in BEIR layout for `sparse_ir`; for `sparse_nanobeir` folders of NanoBEIR, which else is downloaded (`sentence-transformers/NanoBEIR-en`)"),

    key("router.mapping", "", "`{column: query or document}`; anchors are queries, the others documents"),
    key("router.learning_rate_patterns", "", "`{regex: learning rate}`, tried in order on the reference's parameter names"),

    key("model_card.language", "[]", "language codes"),
    key("model_card.license", "", "license as the Hub writes it"),
    key("model_card.library_name", "\"sentence-transformers\"", "library that loads the model"),
    key("model_card.tags", "[]", "tags beside those that every model gets"),
    key("model_card.model_name", "", "heading of the model card"),
    key("model_card.datasets_used", "[]", "data sets to name in the model card"),

    key("mlflow.tracking_uri", "", "server (`http://…`) or folder of MLflow; default: `MLFLOW_TRACKING_URI`, else the folder `mlruns`"),
    key("mlflow.experiment_name", "", "experiment, which is made if there is none of this name; default: `Default`"),
    key("mlflow.tags", "", "tags of the run, `{name: value}`"),

    key("hardware.device", "\"auto\"", "`auto`, `cpu`, `cuda` or `metal`; `mps`, PyTorch's name of `metal`, means the CPU where there is no such device"),
    key("hardware.gradient_checkpointing", "false", "compute each layer again in the backward pass instead of keeping it: less memory, a slower step, the same result"),
    key("hardware.distributed", "false", "true with `world_size` above 1 is an error: one device trains"),
    key("hardware.world_size", "1", "number of devices"),
    only_off("hardware.tf32", "false", "TensorFloat-32 products", ONLY_F32),
];

/// The table as a page of Markdown.
#[cfg(test)]
pub(super) fn page() -> String {
    let mut page = "\
# The keys of a training config

This page is made from the table in [`trainer/src/config/keys.rs`](../trainer/src/config/keys.rs). A key that is not in it is an
error. A key that has no effect may stand in a file; `splade train` names it on stderr with the reason. `*` stands for the name of
a data set, which is yours to choose.
"
    .to_owned();
    let mut section = "";
    for key in KEYS {
        let here = key.path.split('.').next().unwrap_or_default();
        if here != section {
            page.push_str(&format!("\n## {here}\n\n| key | default | meaning |\n|---|---|---|\n"));
            section = here;
        }
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let effect = match key.effect {
            Effect::Works => String::new(),
            Effect::None(reason) => format!(" **No effect**: {reason}."),
            Effect::OnlyOff(reason) => format!(" **No effect unless off**: {reason}."),
        };
        page.push_str(&format!("| `{}` | {default} | {}.{effect} |\n", key.path, key.meaning));
    }
    page
}
