"""Searches exported vectors by another program: `read.py READER EXPORT QUERIES K` prints a TREC run.

QUERIES is a file of `splade encode --role query`. Each reader uses only what its program offers for a file of this format.
"""

import json
import os
import pathlib
import sys

import numpy as np


def queries_of(path):
    """Ids of queries, their dimensions and weights."""
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        yield row["_id"], row["indices"], row["values"]


def duckdb_hits(export, queries, k):
    """A dot product in SQL over postings.parquet."""
    import duckdb

    tables = duckdb.connect()
    for name in ["postings", "documents"]:
        tables.execute(f"CREATE VIEW {name} AS SELECT * FROM '{export}/{name}.parquet'")
    for query, dims, weights in queries:
        tables.execute("CREATE OR REPLACE TABLE query AS SELECT unnest(?::INTEGER[]) term, unnest(?::FLOAT[]) weight",
                       [dims, weights])
        yield query, tables.execute("""
            SELECT id, sum(postings.weight * query.weight) AS score
            FROM postings JOIN query USING (term) JOIN documents USING (document)
            GROUP BY id ORDER BY score DESC, id LIMIT ?""", [k]).fetchall()


def numpy_hits(export, queries, k):
    """The matrix as big-ann-benchmarks reads it, and a product with every row."""
    rows, columns, entries = np.fromfile(export, dtype="int64", count=3)
    starts = np.fromfile(export, dtype="int64", count=rows + 1, offset=24)
    indices = np.fromfile(export, dtype="int32", count=entries, offset=24 + 8 * (rows + 1))
    data = np.fromfile(export, dtype="float32", count=entries, offset=24 + 8 * (rows + 1) + 4 * entries)
    assert starts[-1] == entries and indices.max() < columns
    assert pathlib.Path(export).stat().st_size == 24 + 8 * (rows + 1) + 8 * entries
    ids = pathlib.Path(export + ".ids.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(ids) == rows
    row_of = np.repeat(np.arange(rows), np.diff(starts))
    for query, dims, weights in queries:
        dense = np.zeros(columns, dtype="float64")
        dense[dims] = weights
        scores = np.bincount(row_of, weights=data * dense[indices], minlength=rows)
        yield query, best(zip(ids, scores), k)


def ciff_hits(export, queries, k):
    """Impacts of a CIFF file through ciff-toolkit; scores are divided by the scale in the header."""
    from ciff_toolkit.read import CiffReader

    with CiffReader(export) as reader:
        header = reader.read_header()
        lists = {}
        for postings in reader.read_postings_lists():
            document, impacts = 0, []
            for posting in postings.postings:
                document += posting.docid
                impacts.append((document, posting.tf))
            assert len(impacts) == postings.df and sum(tf for _, tf in impacts) == postings.cf
            lists[postings.term] = impacts
        documents = list(reader.read_documents())
    assert (header.num_postings_lists, header.num_docs) == (len(lists), len(documents))
    assert [document.docid for document in documents] == list(range(len(documents)))
    assert header.total_terms_in_collection == sum(document.doclength for document in documents)
    scale = json.loads(header.description)["scale"]
    for query, dims, weights in queries:
        scores = {}
        for dim, weight in zip(dims, weights):
            for document, impact in lists.get(str(dim), []):
                scores[document] = scores.get(document, 0) + weight * impact / scale
        yield query, best(((documents[at].collection_docid, score) for at, score in scores.items()), k)


def seismic_hits(export, queries, k):
    """Seismic with settings under which it leaves nothing out of so small a collection."""
    from seismic import SeismicIndex, get_seismic_string

    index = SeismicIndex.build(export, n_postings=100_000, centroid_fraction=0.5, summary_energy=1.0, doc_cut=1_000)
    for query, dims, weights in queries:
        names = np.array([str(dim) for dim in dims], dtype=get_seismic_string())
        found = index.search(query, names, np.array(weights, dtype=np.float32), k=k, query_cut=1_000, heap_factor=0.0)
        yield query, best(((document, score) for _, score, document in found), k)


def best(scored, k):
    positive = [(id, float(score)) for id, score in scored if score > 0]
    return sorted(positive, key=lambda hit: (-hit[1], hit[0]))[:k]


READERS = {"duckdb": duckdb_hits, "numpy": numpy_hits, "ciff": ciff_hits, "seismic": seismic_hits}

if __name__ == "__main__":
    reader, export, queries, k = sys.argv[1:]
    # Seismic prints its progress to stdout
    run = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for query, hits in READERS[reader](export, queries_of(queries), int(k)):
        for rank, (document, score) in enumerate(hits, 1):
            print(query, "Q0", document, rank, repr(float(score)), reader, file=run)
