#!/usr/bin/env python3
"""Words and both: BM25 over HTTP beside bare tantivy in one process, and a hybrid query beside its legs.

    e2e/compare/run.sh text [--texts T.txt --asked Q.txt --base B.f32 --queries Q.f32]

Without files it makes texts of words by Zipf, and vectors at random.  The server gets one core and
the client another; tantivy, which has no server to pay for, gets the server's.
"""
import argparse, os
import numpy as np
import tantivy
from server import Server, arguments, b64, cores, numbers, per_second, say

args = argparse.ArgumentParser()
args.add_argument("--rows", type=int, default=100_000)
args.add_argument("--dim", type=int, default=384)
args.add_argument("--texts", help="one text per line")
args.add_argument("--asked", help="one query per line")
args.add_argument("--base", help="a vector per text, little-endian f32")
args.add_argument("--queries", help="a vector per query")
arguments(args)
A = args.parse_args()
rng = np.random.default_rng(7)
K = 10


def made(texts, words):
    ranks = np.exp(rng.random((texts, words)) * np.log(50_000)).astype(int)
    return [" ".join(f"w{rank}" for rank in row) for row in ranks]


def lines(path, most):
    return open(path, encoding="utf-8").read().splitlines()[:most]


TEXTS = lines(A.texts, A.rows) if A.texts else made(A.rows, 12)
ASKED = lines(A.asked, 1000) if A.asked else made(1000, 3)
N = len(TEXTS)
vectors = lambda path, n: np.fromfile(path, "<f4").reshape(-1, A.dim)[:n] if path else rng.standard_normal((n, A.dim)).astype("f4")
X, Q = vectors(A.base, N), vectors(A.queries, len(ASKED))
vector = [numbers(q) for q in Q]
LEGS = {
    "text": [{"text": text, "k": K} for text in ASKED],
    "vector": [{"vector": v, "k": K, "recall": A.recall} for v in vector],
    "hybrid": [{"vector": v, "text": text, "k": K, "recall": A.recall} for v, text in zip(vector, ASKED)],
}


def ids(answer):
    return [hit["id"] for hit in answer["hits"]]


def rhumb():
    """Returns the ids that each text query found."""
    server = Server(A)
    server.create({"e": {"type": "vector", "dim": A.dim, "metric": "cosine"}, "t": {"type": "text", "language": "english"}})
    rate = server.load(0, N, lambda i, j: {"e": b64(X[i:j]), "t": TEXTS[i:j]})
    server.optimize()
    say(f"rhumb: ingest {rate:,.0f} rows/s acknowledged")
    server.settled()
    for bodies in LEGS.values():
        server.replay(bodies)
    server.settled()
    p50 = {}
    for name, bodies in LEGS.items():
        fast = server.replay(bodies)
        full = server.replay(bodies, connections=4)["qps"]
        p50[name] = fast["p50_ms"]
        say(f"rhumb: {name:7} {fast['qps']:7,.0f} QPS ({full:,.0f} with 4 connections)  p50 {fast['p50_ms']:.3f}  p99 {fast['p99_ms']:.3f} ms")
    slower = max(p50["text"], p50["vector"])
    say(f"rhumb: hybrid p50 is {p50['hybrid'] / slower:.2f} x that of its slower leg, {p50['hybrid'] / (p50['text'] + p50['vector']):.2f} x that of both")
    same = 0
    for body in LEGS["hybrid"]:
        exact = {key: value for key, value in body.items() if key != "recall"} | {"exact": True}
        same += len(set(ids(server.query(body))) & set(ids(server.query(exact))))
    say(f"rhumb: hybrid, overlap with exact {same / K / len(ASKED):.4f}")
    found = [ids(server.query(body)) for body in LEGS["text"]]
    server.stop()
    return found


def peer(found):
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("id", stored=True)
    builder.add_text_field("t", tokenizer_name="en_stem")
    index = tantivy.Index(builder.build())
    writer = index.writer(heap_size=500_000_000, num_threads=1)
    for i, text in enumerate(TEXTS):
        writer.add_document(tantivy.Document(id=i, t=text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    plain = lambda text: "".join(c if c.isalnum() else " " for c in text)
    queries = [index.parse_query(plain(text), ["t"]) for text in ASKED]
    same = wanted = 0
    for query, best in zip(queries, found):
        hits = {searcher.doc(address)["id"][0] for _, address in searcher.search(query, K).hits}
        same, wanted = same + len(hits & set(best)), wanted + len(hits)
    os.sched_setaffinity(0, cores(A)[:1])
    qps = per_second(lambda query: searcher.search(query, K), queries, A.seconds)
    say(f"tantivy: {qps:,.0f} QPS (in process, {searcher.num_segments} segments, queries parsed before); {same / max(wanted, 1):.3f} of its hits are ours")


say(f"{N:,} texts, {len(ASKED)} queries")
peer(rhumb())
