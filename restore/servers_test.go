package restore_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crucible/container/testenv"
)

// bridge puts a container on the network of its state root.
func bridge(more ...string) []string { return append([]string{"--net", "bridge"}, more...) }

// client is a connection over which lines go to and fro.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	var conn net.Conn
	eventually(t, "connect to "+address, func() (err error) {
		conn, err = net.DialTimeout("tcp", address, time.Second)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return &client{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

func (c *client) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) hear() string {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("connection to %s: %v", c.RemoteAddr(), err)
	}
	return strings.TrimSpace(line)
}

// must sends a line and checks the line that comes back.
func (c *client) must(line, want string) {
	c.t.Helper()
	c.send(line)
	if got := c.hear(); got != want {
		c.t.Fatalf("%q is answered with %q, want %q", line, got, want)
	}
}

// testRedis: the data, and a connection that lives through it all, also with a
// command under way while no container exists.
func testRedis(t *testing.T, e *env) {
	server := program(t, "redis-server")
	b := e.run(bridge(), server, "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly", "no")
	c := dial(t, b.address+":6379")
	for i := range 500 {
		c.send(fmt.Sprintf("SET key%d value%d", i, i))
	}
	for range 500 {
		if got := c.hear(); got != "+OK" {
			t.Fatalf("SET: %s", got)
		}
	}
	c.must("EXPIRE key0 1000", ":1")

	b.checkpoint()
	c.send("INCR counter") // nobody is there
	b.restore()
	if got := c.hear(); got != ":1" {
		t.Fatalf("INCR that was sent to nobody: %s", got)
	}
	c.must("DBSIZE", ":501")
	for i := 1; i < 500; i += 83 {
		c.must(fmt.Sprintf("STRLEN key%d", i), fmt.Sprintf(":%d", len(fmt.Sprintf("value%d", i))))
	}
	var left int
	c.send("TTL key0")
	if _, err := fmt.Sscanf(c.hear(), ":%d", &left); err != nil || left < 900 || left > 1000 {
		t.Errorf("TTL of a key with 1000 s: %d, %v", left, err)
	}
	dial(t, b.address+":6379").must("DBSIZE", ":501")

	// A command with an answer larger than a socket's buffer, half read.
	c.send("SETRANGE large 4000000 x")
	c.hear()
	c.send("GET large")
	if got := c.hear(); got != "$4000001" {
		t.Fatalf("GET of 4 MB: %s", got)
	}
	b.cycle()
	if n, err := io.CopyN(io.Discard, c.r, 4000003); err != nil {
		t.Fatalf("the rest of an answer: %d bytes, %v", n, err)
	}
	c.must("PING", "+PONG")
}

// web asks a server over one connection and reports whether it was a new one.
type web struct {
	t      testing.TB
	client *http.Client
	base   string
	fresh  bool
}

func newWeb(t testing.TB, address string) *web {
	transport := &http.Transport{MaxConnsPerHost: 1}
	t.Cleanup(transport.CloseIdleConnections)
	return &web{t: t, client: &http.Client{Transport: transport, Timeout: patience}, base: "http://" + address}
}

func (w *web) tryGet(path string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, w.base+path, nil)
	if err != nil {
		return "", err
	}
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { w.fresh = !i.Reused }}
	response, err := w.client.Do(request.WithContext(httptrace.WithClientTrace(w.t.Context(), trace)))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

func (w *web) get(path string) (body string) {
	w.t.Helper()
	eventually(w.t, "GET "+w.base+path, func() (err error) {
		body, err = w.tryGet(path)
		return err
	})
	return body
}

func (w *web) read(path string, into any) {
	w.t.Helper()
	body := w.get(path)
	if err := json.Unmarshal([]byte(body), into); err != nil {
		w.t.Fatalf("GET %s: %v in %q", path, err, body)
	}
}

// mustKeep checks that the last request used the connection of the one before.
func (w *web) mustKeep() {
	w.t.Helper()
	if w.fresh {
		w.t.Error("the connection did not live on")
	}
}

// testPython: a web server, a database in the container's layer with a
// transaction and its lock open, and threads that count.
func testPython(t *testing.T, e *env) {
	interpreter := python(t)
	b := e.run(bridge(), interpreter, "-c", script(t, "server.py"))
	w := newWeb(t, b.address+":8000")
	type state struct {
		Requests, Rows, Sum, Threads int
		Counters                     []int
		Transaction                  bool
	}
	var before, after state
	w.get("/insert_into_numbers_values_(1),(2),(3)")
	w.get("/begin_immediate")
	w.read("/insert_into_numbers_values_(10)", &before)
	if before.Rows != 4 || !before.Transaction {
		t.Fatalf("before: %+v", before)
	}

	b.cycle()

	w.read("/", &after)
	w.mustKeep()
	if after.Rows != 4 || after.Sum != 16 || !after.Transaction || after.Requests != before.Requests+1 || after.Threads != before.Threads {
		t.Errorf("after: %+v, before: %+v", after, before)
	}
	for i := range after.Counters {
		if after.Counters[i] <= before.Counters[i] {
			t.Errorf("thread %d does not count: %d, before %d", i, after.Counters[i], before.Counters[i])
		}
	}
	// The open transaction is on the files too: another process sees what was
	// committed before, and must not write.
	const peek = `import sqlite3; db = sqlite3.connect("/srv/crucible-test/numbers.db", timeout=0)
print(db.execute("select count(*) from numbers").fetchone()[0])
try: db.execute("insert into numbers values (0)"); print("written")
except sqlite3.OperationalError as e: print(e)`
	if got := b.exec(interpreter, "-c", peek); got != "3\ndatabase is locked\n" {
		t.Errorf("another process sees %q", got)
	}
	w.read("/rollback", &after)
	if after.Rows != 3 || after.Sum != 6 || after.Transaction {
		t.Errorf("after rollback: %+v", after)
	}
}

const nginxConfig = `
daemon off;
user USER;
worker_processes 2;
error_log stderr notice;
pid /run/nginx.pid;
events { worker_connections 64; }
http {
	access_log /var/log/nginx/crucible.log;
	server {
		listen 8000;
		location / { return 200 "ANSWER $pid $connection_requests\n"; }
		location /file { alias /srv/crucible-test.txt; }
	}
}
`

// testNginx: a master and workers, and a reload afterwards. Where root runs
// them, connections live on; with workers of another user it takes a user
// namespace, at least where crucible lacks CAP_SYS_RESOURCE, and from such a
// one CRIU cannot take connections.
func testNginx(t *testing.T, e *env, user string, flags ...string) {
	server := program(t, "/usr/sbin/nginx")
	config := func(answer string) string {
		return strings.NewReplacer("USER", user, "ANSWER", answer).Replace(nginxConfig)
	}
	b := e.run(bridge(flags...), "/bin/sh", "-c",
		`echo "$0" >/etc/nginx-test.conf; echo content >/srv/crucible-test.txt; exec "$1" -c /etc/nginx-test.conf`, config("one"), server)
	w := newWeb(t, b.address+":8000")
	keep := len(flags) == 0
	var word string
	var worker, requests, again int
	scan := func(body string) {
		t.Helper()
		if _, err := fmt.Sscan(body, &word, &worker, &requests); err != nil {
			t.Fatalf("%v in %q", err, body)
		}
	}
	scan(w.get("/"))
	before, kept := worker, requests
	workers := b.workers()
	if !keep {
		_, err := b.command(nil, "checkpoint", b.name)
		if err == nil || !strings.Contains(err.Error(), "--tcp-close") {
			t.Fatalf("checkpoint with an open connection: %v", err)
		}
		w.client.CloseIdleConnections()
		eventually(t, "nginx closes the connection", func() error {
			_, err := b.command(nil, "checkpoint", "--dry-run", b.name)
			return err
		})
	}

	b.cycle()

	scan(w.get("/"))
	if keep {
		w.mustKeep()
		if worker != before || requests != kept+1 {
			t.Errorf("after: worker %d, request %d; before: worker %d, request %d", worker, requests, before, kept)
		}
	}
	if got := b.workers(); word != "one" || fmt.Sprint(got) != fmt.Sprint(workers) {
		t.Errorf("%q from the workers %v, before %v", word, got, workers)
	}
	if got := w.get("/file"); got != "content\n" {
		t.Errorf("file: %q", got)
	}

	if err := os.WriteFile(b.path("/etc/nginx-test.conf"), []byte(config("two")), 0o644); err != nil {
		t.Fatal(err)
	}
	b.do("kill", "--signal", "HUP", b.name)
	eventually(t, "reload", func() error {
		w.client.CloseIdleConnections()
		body, err := w.tryGet("/")
		if err != nil {
			return err
		}
		_, err = fmt.Sscan(body, &word, &again, &requests)
		if word != "two" || again == before {
			return fmt.Errorf("still %q", body)
		}
		return err
	})
	b.do("kill", "--signal", "QUIT", b.name)
	if got := strings.TrimSpace(b.do("wait", b.name)); got != "0" {
		t.Errorf("exit status after SIGQUIT: %s", got)
	}
}

// workers are nginx's two workers, by the container's own numbers. They have
// started when they have that title.
func (b *box) workers() (workers []string) {
	b.t.Helper()
	eventually(b.t, "workers", func() error {
		var tasks []struct {
			Pid     int
			UID     int
			Command string
		}
		b.read(&tasks, "ps", "--json", b.name)
		workers = nil
		for _, one := range tasks {
			if strings.Contains(one.Command, "worker process") {
				workers = append(workers, fmt.Sprint(one.Pid, " ", one.UID))
			}
		}
		if len(workers) != 2 {
			return fmt.Errorf("%+v", tasks)
		}
		return nil
	})
	slices.Sort(workers)
	return workers
}

// testNode: an event loop with timers, the thread pool, and an open file.
func testNode(t *testing.T, e *env) {
	interpreter := program(t, "node")
	source, err := os.ReadFile("testdata/server.js")
	if err != nil {
		t.Fatal(err)
	}
	b := e.run(bridge(), interpreter, "-e", string(source))
	w := newWeb(t, b.address+":8000")
	type state struct {
		Ticks, Requests, Promised, Lines int
		Secret                           string
		InOrder                          bool
	}
	var before, after state
	w.get("/")
	w.read("/", &before)

	b.cycle()

	w.read("/", &after)
	w.mustKeep()
	if after.Secret != before.Secret || after.Requests != before.Requests+1 || !after.InOrder || after.Lines < after.Ticks {
		t.Errorf("after: %+v, before: %+v", after, before)
	}
	eventually(t, "timers", func() error {
		w.read("/", &after)
		if after.Ticks < before.Ticks+20 || after.Promised < before.Promised+20 || !after.InOrder {
			return fmt.Errorf("after: %+v, before: %+v", after, before)
		}
		return nil
	})
}

// testGo: the runtime's threads, timers and poller in a static program.
func testGo(t *testing.T, e *env) {
	dir := buildGo(t)
	// CRIU cannot carry Multipath TCP, which Go's listeners use where they can.
	b := e.run(bridge("-v", dir+":/opt/test:ro", "-e", "GODEBUG=multipathtcp=0"), "/opt/test/goserver")
	w := newWeb(t, b.address+":8000")
	type state struct {
		Ticks, Handed int
		Seen          map[string]int
	}
	var before, after state
	w.get("/a")
	w.read("/b", &before)

	b.cycle()

	w.read("/a", &after)
	w.mustKeep()
	if after.Seen["/a"] != 2 || after.Seen["/b"] != 1 || after.Ticks < before.Ticks {
		t.Errorf("after: %+v, before: %+v", after, before)
	}
	eventually(t, "timers", func() error {
		w.read("/c", &after)
		if after.Ticks < before.Ticks+20 || after.Handed < before.Handed+20 {
			return fmt.Errorf("after: %+v, before: %+v", after, before)
		}
		return nil
	})
}

// buildGo builds testdata/goserver and returns its directory, which lies where
// a container sees the host's files.
func buildGo(t testing.TB) string {
	t.Helper()
	goTool := program(t, "go")
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), goTool, "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "goserver"), "./testdata/goserver")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build testdata/goserver: %v\n%s", err, out)
	}
	return dir
}

// testGoMPTCP: without the setting the checkpoint is refused before anything is
// frozen, with the reason and the remedy, and the server goes on.
func testGoMPTCP(t *testing.T, e *env) {
	if _, err := os.Stat("/proc/sys/net/mptcp/enabled"); err != nil {
		testenv.Lacks(t, "Multipath TCP", testenv.KernelOption("CONFIG_MPTCP"))
	}
	b := e.run(bridge("-v", buildGo(t)+":/opt/test:ro", "-e", "GODEBUG=multipathtcp=1"), "/opt/test/goserver")
	w := newWeb(t, b.address+":8000")
	w.get("/")
	_, err := b.command(nil, "checkpoint", b.name)
	if err == nil {
		t.Fatal("a listener of Multipath TCP was checkpointed")
	}
	if !strings.Contains(err.Error(), "multipathtcp=0") {
		t.Errorf("no remedy: %v", err)
	}
	b.mustBe("running")
	w.get("/")
}
