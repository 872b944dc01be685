# A web server on a database, with threads that count beside it.
import http.server, sqlite3

directory = "/srv/crucible-test"
os.makedirs(directory, exist_ok=True)
db = sqlite3.connect(directory + "/numbers.db", check_same_thread=False, isolation_level=None)
db.execute("create table numbers (n integer)")
lock = threading.Lock()
counters = [0] * 4
local = threading.local()

def count(i):
    local.mine = 0
    while True:
        local.mine += 1
        counters[i] = local.mine
        time.sleep(0.001)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    requests = 0

    def do_GET(self):
        with lock:
            Handler.requests += 1
            if self.path != "/":
                db.execute(self.path.strip("/").replace("_", " "))
            rows, total = db.execute("select count(*), coalesce(sum(n), 0) from numbers").fetchone()
            reply = json.dumps({"requests": Handler.requests, "rows": rows, "sum": total, "counters": counters,
                                "transaction": db.in_transaction, "threads": threading.active_count()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        pass

for i in range(len(counters)):
    threading.Thread(target=count, args=(i,), daemon=True).start()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
