#!/usr/bin/env python3
"""Rhumb over HTTP beside Qdrant's engine, faiss and hnswlib in one process: speed and recall, in one run.

    e2e/compare/run.sh [--rows 100000 --dim 384] [--base B.f32 --queries Q.f32 --dim 384]

Without --base it makes its data: clusters that touch, and queries of which every fifth lies
outside all of them.  The server gets one core and the client another; a peer, which has no
server to pay for, gets the server's.  Every peer is given its smallest sufficient setting.
"""
import argparse, os, tempfile, time
from collections import Counter
import numpy as np
from server import Server, arguments, b64, cores, numbers, per_second, say

args = argparse.ArgumentParser()
args.add_argument("--rows", type=int, default=100_000)
args.add_argument("--dim", type=int, default=384)
args.add_argument("--base", help="rows as little-endian f32")
args.add_argument("--queries", help="queries as little-endian f32")
args.add_argument("--fresh", type=float, default=0.17, help="share of rows that come after the index")
args.add_argument("--peers", default="qdrant,faiss,hnswlib")
args.add_argument("--skip", default="", help="of: rhumb,filters,fresh,restart,load,recall,memory")
arguments(args)
A = args.parse_args()
rng = np.random.default_rng(7)
K = 10


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def data():
    fresh = int(A.rows * A.fresh)
    total = A.rows + fresh
    if A.base:
        rows = np.fromfile(A.base, "<f4").reshape(-1, A.dim)[:total]
        return rows, np.fromfile(A.queries, "<f4").reshape(-1, A.dim)[:1000]
    middles = rng.standard_normal((256, A.dim)).astype("f4")
    near = lambda n: middles[rng.integers(0, 256, n)] + 0.6 * rng.standard_normal((n, A.dim)).astype("f4")
    outside = rng.standard_normal((200, A.dim)).astype("f4")
    return near(total).astype("f4"), np.concatenate([near(800), outside]).astype("f4")[rng.permutation(1000)]


X, Q = data()
TOTAL = len(X)
N = min(A.rows, TOTAL)
XN, QN = unit(X), unit(Q)
uniform = rng.integers(0, 100, TOTAL)
# A filter that the vectors have to do with: rows by how far they lie along one direction.
along = XN @ XN[:2000].mean(axis=0)
rank = np.empty(TOTAL, int)
rank[np.argsort(along)] = np.arange(TOTAL)
correlated = rank * 100 // TOTAL
FILTERS = {
    "none": (None, None),
    "1 %": ({"u": 7}, uniform == 7),
    "10 %": ({"u": {"$lt": 10}}, uniform < 10),
    "50 %": ({"u": {"$lt": 50}}, uniform < 50),
    "1 % correlated": ({"c": 99}, correlated == 99),
    "10 % correlated": ({"c": {"$gte": 90}}, correlated >= 90),
}
if "filters" in A.skip:
    FILTERS = {"none": FILTERS["none"]}


def truth(rows, mask):
    scores = QN @ XN[:rows].T
    if mask is not None:
        scores[:, ~mask[:rows]] = -9
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
    return [set(row) for row in np.take_along_axis(best, order, 1)]


def recall(server, filter_, expected):
    found = 0
    for q, best in zip(Q, expected):
        answer = server.query({"vector": b64(q), "k": K, "recall": A.recall, **filtered(filter_)})
        found += len(best & {hit["id"] for hit in answer["hits"]})
    return found / len(Q) / K


def filtered(filter_):
    return {"filter": filter_} if filter_ else {}


def bodies(filter_):
    return [{"vector": numbers(q), "k": K, "recall": A.recall, **filtered(filter_)} for q in Q]


def columns(i, j):
    return {"e": b64(X[i:j]), "u": uniform[i:j].tolist(), "c": correlated[i:j].tolist()}


def rhumb():
    server = Server(A)
    time.sleep(2)
    empty = server.memory()["Pss"]
    server.create({"e": {"type": "vector", "dim": A.dim, "metric": "cosine"}, "u": "int", "c": "int"})
    if "load" not in A.skip:
        say(f"rhumb: ingest {server.load(0, N, columns):,.0f} rows/s acknowledged, 2 connections, batches of 1,000")
        begun = time.time()
        server.optimize()
        say(f"rhumb: optimize {time.time() - begun:.1f} s; {server.cpu():.1f} CPU s since the start")
    server.settled()
    measure(server, N, "")
    peak = server.replay(bodies(None), connections=4)["qps"]
    half = server.replay(bodies(None), connections=8, rate=peak / 2)
    say(f"rhumb: 4 connections {peak:,.0f} QPS; evenly spaced at half of it: p50 {half['p50_ms']:.3f} p99 {half['p99_ms']:.3f} ms = {half['p99_ms'] / half['p50_ms']:.2f} x")
    say_memory(server, empty)
    if "restart" not in A.skip:
        server.stop()
        begun = time.time()
        server.start()
        server.query({"vector": b64(Q[0]), "k": K})
        say(f"rhumb: kill -9 to first answer {time.time() - begun:.2f} s")
        server.settled()
        measure(server, N, "restarted, ", only_none=True)
        say_memory(server, empty)
    if "fresh" not in A.skip and TOTAL > N:
        say(f"rhumb: fresh ingest {server.load(N, TOTAL, columns):,.0f} rows/s")
        server.settled()
        measure(server, TOTAL, "17 % fresh, ")
    server.stop()


def say_memory(server, empty):
    """When nothing was asked for long enough that an idle server has given back what it can."""
    if "memory" in A.skip:
        return
    time.sleep(60)
    now, raw = server.memory(), N * A.dim * 4 / 2**20
    say(f"rhumb: memory {now} MB after 60 s, {now['Pss'] - empty} MB more than an empty server = {(now['Pss'] - empty) / raw:.2f} of the raw vectors")


def measure(server, rows, label, only_none=False):
    for name, (filter_, mask) in FILTERS.items():
        if only_none and name != "none":
            continue
        found = recall(server, filter_, truth(rows, mask)) if "recall" not in A.skip else float("nan")
        fast = server.replay(bodies(filter_))
        full = server.replay(bodies(filter_), connections=4)["qps"]
        looked = Counter()
        for q in Q[:100]:
            explain = server.query({"vector": b64(q), "k": K, "recall": A.recall, "explain": True, **filtered(filter_)})["explain"]
            looked.update({k: explain[k] / 100 for k in ("rows_scanned", "rows_rescored", "segments", "fresh_rows")})
        looked = {k: round(v) for k, v in looked.items()}
        say(f"rhumb: {label}{name:16} recall {found:.4f}  {fast['qps']:7,.0f} QPS ({full:,.0f} with 4 connections)  p50 {fast['p50_ms']:.3f}  p99 {fast['p99_ms']:.3f} ms  {looked}")


def sufficient(search, expected, settings):
    """The smallest setting that reaches the recall, its recall and its speed."""
    for setting in settings:
        found = sum(len(best & set(search(q, setting))) for q, best in zip(QN, expected)) / len(Q) / K
        if found >= A.recall:
            break
    return setting, found, per_second(lambda q: search(q, setting), QN, A.seconds)


EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)


def faiss_peer():
    import faiss

    faiss.omp_set_num_threads(1)
    begun = time.process_time()
    index = faiss.IndexHNSWSQ(A.dim, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    index.train(XN[:N])
    index.add(XN[:N])
    say(f"faiss HNSW16 SQ8: built in {time.process_time() - begun:.1f} CPU s")
    for name, (_, mask) in FILTERS.items():
        chosen = None if mask is None else faiss.IDSelectorBatch(np.nonzero(mask[:N])[0])

        def search(q, ef):
            params = faiss.SearchParametersHNSW(efSearch=ef, sel=chosen)
            return index.search(q[None], K, params=params)[1][0]

        setting, found, qps = sufficient(search, truth(N, mask), EFFORTS)
        say(f"faiss HNSW16 SQ8: {name:16} recall {found:.4f}  {qps:7,.0f} QPS (in process, ef {setting})")


def hnswlib_peer():
    import hnswlib

    begun = time.process_time()
    index = hnswlib.Index("cosine", A.dim)
    index.init_index(N, M=16, ef_construction=100)
    index.set_num_threads(1)
    index.add_items(XN[:N], num_threads=1)
    say(f"hnswlib M16: built in {time.process_time() - begun:.1f} CPU s")

    def search(q, ef):
        index.set_ef(ef)
        return index.knn_query(q, K, num_threads=1)[0][0]

    setting, found, qps = sufficient(search, truth(N, None), EFFORTS)
    say(f"hnswlib M16: none recall {found:.4f}  {qps:7,.0f} QPS (in process, ef {setting})")


def qdrant_peer():
    """Qdrant's engine in this process (its edge edition): int8 in memory, searched on one core."""
    import qdrant_edge as qd

    folder = tempfile.mkdtemp(prefix="qdrant-compare-")
    config = qd.EdgeConfig(
        vectors=qd.EdgeVectorParams(size=A.dim, distance=qd.Distance.Cosine),
        hnsw_config=qd.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=1),
        quantization_config=qd.ScalarQuantizationConfig(type=qd.ScalarType.Int8, quantile=0.99, always_ram=True),
        optimizers=qd.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
        max_search_threads=1,
    )
    shard = qd.EdgeShard.create(folder, config)
    for field in ("u", "c"):
        shard.update(qd.UpdateOperation.create_field_index(field, qd.PayloadSchemaType.Integer))

    def load(first, end):
        for i in range(first, end, 1000):
            rows = range(i, min(i + 1000, end))
            points = [qd.Point(n, XN[n].tolist(), {"u": int(uniform[n]), "c": int(correlated[n])}) for n in rows]
            shard.update(qd.UpdateOperation.upsert_points(points))

    load(0, N)
    begun = time.process_time()
    shard.optimize()
    say(f"qdrant engine int8: indexed in {time.process_time() - begun:.1f} CPU s")

    def compared(label, rows):
        for name, (filter_, mask) in FILTERS.items():
            chosen = None
            if filter_:
                (field, rule), = filter_.items()
                bounds = {k[1:]: v for k, v in rule.items()} if isinstance(rule, dict) else {"gte": rule, "lte": rule}
                chosen = qd.Filter(must=[qd.FieldCondition(key=field, range=qd.RangeFloat(**bounds))])

            def search(q, ef):
                params = qd.SearchParams(hnsw_ef=ef, quantization=qd.QuantizationSearchParams(rescore=True, oversampling=1.0))
                return [hit.id for hit in shard.search(qd.SearchRequest(query=qd.Query.Nearest(q.tolist()), limit=K, filter=chosen, params=params))]

            setting, found, qps = sufficient(search, truth(rows, mask), EFFORTS)
            say(f"qdrant engine int8: {label}{name:16} recall {found:.4f}  {qps:7,.0f} QPS (in process, ef {setting})")

    compared("", N)
    if "fresh" not in A.skip and TOTAL > N:
        load(N, TOTAL)
        compared("17 % fresh, ", TOTAL)


say(f"{N:,} x {A.dim} and {TOTAL - N:,} more, {len(Q)} queries, recall {A.recall}")
if "rhumb" not in A.skip:
    rhumb()
os.sched_setaffinity(0, cores(A)[:1])
for peer in filter(None, A.peers.split(",")):
    {"faiss": faiss_peer, "hnswlib": hnswlib_peer, "qdrant": qdrant_peer}[peer]()
