package restore_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"crucible/container/testenv"
)

// testNamedBridge: a bridge that was asked for by a name goes with its last
// container, and a restore makes it again: with the address and the published
// ports that it had. Clones get addresses of their own on it.
func testNamedBridge(t *testing.T, e *env) {
	name, publish := testenv.Name(t), "127.0.0.1:"+freePort(t)
	b := e.run([]string{"--net", "bridge=" + name, "-p", publish + ":80"}, python(t), "-m", "http.server", "80")
	address := b.address
	if !strings.HasPrefix(address, "10.76.") {
		t.Errorf("the address on a bridge made by name is %s", address)
	}
	newWeb(t, publish).get("/")
	b.cycle()
	newWeb(t, publish).get("/")
	c := b.checkpoint()
	b.do("delete", b.name)
	if _, err := net.InterfaceByName(name); err == nil {
		t.Errorf("bridge %s is there after its last container", name)
	}
	b.restore()
	if b.address != address {
		t.Errorf("restored at %s, it was at %s", b.address, address)
	}
	newWeb(t, publish).get("/")
	twin := b.clone(c.Ref)
	newWeb(t, twin.address+":80").get("/")
	link, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := link.Addrs()
	if err != nil || len(addresses) != 1 {
		t.Fatalf("the bridge has %v, %v", addresses, err)
	}
	if subnet := addresses[0].(*net.IPNet); twin.address == address || !subnet.Contains(net.ParseIP(twin.address)) {
		t.Errorf("the twin is at %s, the original at %s, on %s", twin.address, address, subnet)
	}
	// As the first on the bridge it chooses the subnet, too.
	b.do("delete", "-f", b.name)
	b.do("delete", "-f", twin.name)
	twin = b.clone(c.Ref, "--ip", "10.76.203.9/26")
	if twin.address != "10.76.203.9" {
		t.Errorf("the twin is at %s", twin.address)
	}
}

// freePort is a TCP port that nobody listens at now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// testLowPort: a user namespace's root serves at port 80, before and after.
func testLowPort(t *testing.T, e *env) {
	b := e.run(bridge("--userns", "auto", "--sysctl", "net.ipv4.tcp_retries1=7"), python(t), "-m", "http.server", "80")
	newWeb(t, b.address+":80").get("/")
	b.cycle()
	newWeb(t, b.address+":80").get("/")
	const look = `import socket
socket.create_server(("127.0.0.1", 81))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) # ping
print(open("/proc/sys/net/ipv4/tcp_retries1").read(), end="")`
	for _, what := range []string{"restored", "cloned"} {
		if got := b.exec(python(t), "-c", look); got != "7\n" {
			t.Errorf("%s: %q", what, got)
		}
		b = b.clone(b.list().Image)
	}
}
