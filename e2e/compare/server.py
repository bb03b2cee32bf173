"""A rhumb server on one core, and what is measured of it from another."""
import base64, http.client, json, os, subprocess, tempfile, threading, time

b64 = lambda v: "b64:" + base64.b64encode(v.astype("<f4").tobytes()).decode()
say = lambda *a: print(*a, flush=True)
# As a client without base64 sends it.
numbers = lambda v: [round(float(x), 7) for x in v]


def arguments(args):
    """What every comparison is told."""
    args.add_argument("--recall", type=float, default=0.95)
    args.add_argument("--seconds", type=float, default=4)
    args.add_argument("--server", required=True, help="the rhumb binary")
    args.add_argument("--replay", required=True, help="the replay binary")
    args.add_argument("--store")
    args.add_argument("--cores", default="0,1", help="the server's and the client's")


def cores(args):
    """The server's, which a peer in this process gets instead, and the client's."""
    return [int(core) for core in args.cores.split(",")]


def per_second(ask, queries, seconds):
    """How many are answered when they are asked round and round, in this process."""
    begun, rounds = time.time(), 0
    while time.time() - begun < seconds:
        for query in queries:
            ask(query)
        rounds += 1
    return rounds * len(queries) / (time.time() - begun)


class Server:
    def __init__(self, args):
        self.args = args
        self.core, self.client = cores(args)
        self.store = args.store or tempfile.mkdtemp(prefix="rhumb-compare-")
        self.port = 17480
        self.start()

    def start(self):
        begun = time.time()
        command = ["taskset", "-c", str(self.core), self.args.server, "serve", "--dev", "--store", f"file://{self.store}", "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, stderr=open(self.store + ".log", "a"))
        while True:
            try:
                self.http = http.client.HTTPConnection("127.0.0.1", self.port)
                if self.call("GET", "/readyz")[0] == 200:
                    return time.time() - begun
            except OSError:
                time.sleep(0.005)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def call(self, method, path, body=None):
        for attempt in (1, 2):
            try:
                self.http.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
                answer = self.http.getresponse()
                break
            except (ConnectionError, http.client.HTTPException):
                # The server closes what is idle for 30 s, as while the truth is worked out.
                self.http.close()
                if attempt == 2:
                    raise
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def query(self, body):
        status, answer = self.call("POST", "/v1/collections/c/query", body)
        assert status == 200, answer
        return answer

    def create(self, fields):
        status, answer = self.call("PUT", "/v1/collections/c", {"fields": fields})
        assert status in (200, 201), answer

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Pss and anonymous Pss, in MB."""
        lines = dict(l.split(":", 1) for l in open(f"/proc/{self.process.pid}/smaps_rollup").read().splitlines()[1:])
        return {k: int(lines[k].split()[0]) // 1024 for k in ("Pss_Anon", "Pss")}

    def settled(self):
        """Until nothing runs in the background any more."""
        while True:
            before = self.cpu()
            time.sleep(1)
            if self.cpu() - before < 0.03:
                return

    def load(self, first, end, columns):
        """`columns` of the ids first..end over two connections, 1,000 at a time; rows per second."""
        starts, lock = iter(range(first, end, 1000)), threading.Lock()

        def loader():
            http_ = http.client.HTTPConnection("127.0.0.1", self.port)
            while True:
                with lock:
                    i = next(starts, None)
                if i is None:
                    return
                j = min(i + 1000, end)
                body = {"upsert_columns": {"id": list(range(i, j)), **columns(i, j)}}
                http_.request("POST", "/v1/collections/c/documents", json.dumps(body), {"content-type": "application/json"})
                answer = http_.getresponse()
                text = answer.read()
                assert answer.status == 200, (answer.status, text[:300])

        begun = time.time()
        loaders = [threading.Thread(target=loader) for _ in range(2)]
        [l.start() for l in loaders]
        [l.join() for l in loaders]
        return (end - first) / (time.time() - begun)

    def optimize(self):
        self.call("POST", "/v1/collections/c/optimize", {"wait": True})

    def replay(self, bodies, connections=1, rate=0, seconds=None):
        """Sends the queries round and round from the client's core; what replay says of it."""
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(json.dumps(body) + "\n" for body in bodies)
            file.flush()
            command = ["taskset", "-c", str(self.client), self.args.replay, f"127.0.0.1:{self.port}", "/v1/collections/c/query", file.name, f"connections={connections}", f"seconds={seconds or self.args.seconds}", f"rate={rate}"]
            return json.loads(subprocess.check_output(command))
