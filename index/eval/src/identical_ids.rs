//! Tasks of which mteb leaves a query's own document out of the ranking.

/// Task names and data set ids of mteb 2.26.24 whose tasks set `ignore_identical_ids`.
///
/// Their queries are documents of the corpus (`ArguAna`, Quora), or their ids are of another kind than the documents'
/// (`FiQA`): mteb drops a document whose id is the query's in both cases. The sets of NanoBEIR are not among them.
const TASKS: [(&str, &str); 64] = [
    ("ArguAna", "mteb/arguana"),
    ("ArguAna-Fa", "MCINext/arguana-fa"),
    ("ArguAna-Fa.v2", "MCINext/arguana-fa-v2"),
    ("ArguAna-NL", "clips/beir-nl-arguana"),
    ("ArguAna-NL.v2", "clips/beir-nl-arguana"),
    ("ArguAna-PL", "mteb/ArguAna-PL"),
    ("bBSARDNLRetrieval", "clips/mteb-nl-bbsard"),
    ("BSARDRetrieval", "mteb/BSARDRetrieval"),
    ("BSARDRetrieval.v2", "mteb/BSARDRetrieval.v2"),
    ("DanFEVER", "mteb/DanFEVER"),
    ("EcomRetrieval", "mteb/EcomRetrieval"),
    ("FeedbackQARetrieval", "mteb/FeedbackQARetrieval"),
    ("FEVER", "mteb/fever"),
    ("FEVER-FaHardNegatives", "MCINext/FEVER_FA_test_top_250_only_w_correct-v2"),
    ("FEVER-NL", "clips/beir-nl-fever"),
    ("FEVERHardNegatives", "mteb/FEVER_test_top_250_only_w_correct-v2"),
    ("FEVERHardNegatives.v2", "mteb/FEVER_test_top_250_only_w_correct-v2"),
    ("FiQA-PL", "mteb/FiQA-PL"),
    ("FiQA2018", "mteb/fiqa"),
    ("FiQA2018-Fa", "MCINext/fiqa-fa"),
    ("FiQA2018-Fa.v2", "MCINext/fiqa-fa-v2"),
    ("FiQA2018-NL", "clips/beir-nl-fiqa"),
    ("FiQADecontaminated", "iamfortytwo/fiqa-decontaminated"),
    ("IFIRFiQA", "if-ir/fiqa"),
    ("JaCWIRRetrieval", "mteb/JaCWIRRetrieval"),
    ("JaGovFaqsRetrieval", "mteb/JaGovFaqsRetrieval"),
    ("LegalQANLRetrieval", "clips/mteb-nl-legalqa-pr"),
    ("MedicalRetrieval", "mteb/MedicalRetrieval"),
    ("MLQuestions", "mteb/MLQuestions"),
    ("mMARCO-NL", "clips/beir-nl-mmarco"),
    ("MMarcoRetrieval", "mteb/MMarcoRetrieval"),
    ("MMarcoRetrievalMultilingual", "lopozz/MMarcoRetrievalMultilingual"),
    ("MSMARCO", "mteb/msmarco"),
    ("MSMARCO-Fa", "MCINext/msmarco-fa"),
    ("MSMARCO-FaHardNegatives", "MCINext/MSMARCO_FA_test_top_250_only_w_correct-v2"),
    ("MSMARCO-PL", "mteb/MSMARCO-PL"),
    ("MSMARCO-PLHardNegatives", "mteb/MSMARCO-PLHardNegatives"),
    ("MSMARCOHardNegatives", "mteb/MSMARCO_test_top_250_only_w_correct-v2"),
    ("NLPJournalAbsArticleRetrieval", "mteb/NLPJournalAbsArticleRetrieval"),
    ("NLPJournalAbsArticleRetrieval.V2", "mteb/NLPJournalAbsArticleRetrieval.V2"),
    ("PersianWebDocumentRetrieval", "MCINext/persian-web-document-retrieval"),
    ("Quora-NL", "clips/beir-nl-quora"),
    ("QuoraRetrieval", "mteb/quora"),
    ("QuoraRetrieval-Fa", "MCINext/quora-fa"),
    ("QuoraRetrieval-Fa.v2", "MCINext/quora-fa-v2"),
    ("QuoraRetrievalDecontaminated", "iamfortytwo/quora-decontaminated"),
    ("QuoraRetrievalHardNegatives", "mteb/QuoraRetrieval_test_top_250_only_w_correct-v2"),
    ("QuoraRetrievalHardNegatives.v2", "mteb/QuoraRetrieval_test_top_250_only_w_correct-v2"),
    ("RiaNewsRetrieval", "ai-forever/ria-news-retrieval"),
    ("RiaNewsRetrievalHardNegatives", "mteb/RiaNewsRetrieval_test_top_250_only_w_correct-v2"),
    ("RiaNewsRetrievalHardNegatives.v2", "mteb/RiaNewsRetrieval_test_top_250_only_w_correct-v2"),
    ("RuBQRetrieval", "ai-forever/rubq-retrieval"),
    ("RuSciBenchCiteRetrieval", "mlsa-iai-msu-lab/ru_sci_bench_cite_retrieval"),
    ("RuSciBenchCociteRetrieval", "mlsa-iai-msu-lab/ru_sci_bench_cocite_retrieval"),
    ("SynPerChatbotRAGFAQRetrieval", "MCINext/synthetic-persian-chatbot-rag-faq-retrieval"),
    ("SynPerChatbotRAGTopicsRetrieval", "MCINext/synthetic-persian-chatbot-rag-topics-retrieval"),
    ("SynPerChatbotTopicsRetrieval", "MCINext/synthetic-persian-chatbot-topics-retrieval"),
    ("SynPerQARetrieval", "MCINext/synthetic-persian-qa-retrieval"),
    ("T2Retrieval", "mteb/T2Retrieval"),
    ("TRECDL2019", "whybe-choi/trec-dl-2019"),
    ("TRECDL2020", "whybe-choi/trec-dl-2020"),
    ("VCDBCoreAudioVideoRetrieval", "pranitchawla/VCDB-Core-AudioVideo"),
    ("VCDBCoreRetrieval", "pranitchawla/VCDB-Core"),
    ("VideoRetrieval", "mteb/VideoRetrieval"),
];

/// True if mteb leaves out documents that have the query's id on the data set called `name`: a task's name, or the
/// name of its data set without the owner, as BEIR's folders are called too; upper and lower case alike.
///
/// ```
/// use splade_eval::ignores_identical_ids;
///
/// assert!(ignores_identical_ids("ArguAna") && ignores_identical_ids("quora"));
/// assert!(!ignores_identical_ids("NanoArguAna") && !ignores_identical_ids("scifact"));
/// ```
#[must_use]
pub fn ignores_identical_ids(name: &str) -> bool {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    TASKS.iter().any(|(task, dataset)| same(task) || dataset.rsplit('/').next().is_some_and(same))
}
