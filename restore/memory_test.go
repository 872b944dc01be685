package restore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain makes the test binary also the program in the containers of
// TestIncremental, which run where there is no other (a virtual machine).
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == memoryProgram {
		if err := runMemory(os.Args[2], os.Args[3]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const (
	memoryProgram = "memory-of-a-test"
	memoryPages   = 8192 // 32 MiB
)

// memory starts a program with so much memory that is its own. It answers, on
// the socket /run/ask:
//
//	fill VALUE FROM TO    writes VALUE into the bytes of these pages
//	look                  says which values there are, and in how many pages each
//	child SOCKET          starts another such program, of 256 pages, which answers there
//	churn                 starts programs that end at once, again and again
func (e *env) memory(flags ...string) *box {
	e.t.Helper()
	b := e.run(append(flags, e.programRoot()...), "/program", memoryProgram, "/run/ask", strconv.Itoa(memoryPages))
	e.t.Cleanup(func() { // a virtual machine has little room
		if err := os.RemoveAll(filepath.Join(e.root, "images", b.name)); err != nil {
			e.t.Error(err)
		}
	})
	b.fill(1, 0, memoryPages)
	return b
}

// programRoot are the flags for a root filesystem with the test binary as
// /program. It is below the state root, whose file system is fit for a layer.
func (e *env) programRoot() (flags []string) {
	e.t.Helper()
	dir := filepath.Join(e.root, "program")
	err := os.MkdirAll(dir+"/run", 0o755)
	if _, there := os.Stat(dir + "/program"); there != nil && err == nil { // others may run it
		var program []byte
		program, err = os.ReadFile("/proc/self/exe")
		err = errors.Join(err, os.WriteFile(dir+"/program", program, 0o755))
	}
	if err != nil {
		e.t.Fatal(err)
	}
	for _, libraries := range []string{"/lib", "/lib64", "/usr/lib"} { // unless it is static
		if _, err := os.Stat(libraries); err == nil {
			flags = append(flags, "-v", libraries+":"+libraries+":ro")
		}
	}
	return append(flags, "--rootfs", dir)
}

func (b *box) fill(value, from, to int) {
	b.t.Helper()
	var n int
	b.ask(fmt.Sprintf("fill %d %d %d", value, from, to), &n)
	if n != to-from {
		b.t.Fatalf("filled %d pages, want %d", n, to-from)
	}
}

// mustHold checks how many pages hold which value. That a page is of one piece,
// the program checks.
func (b *box) mustHold(what string, want map[string]int) {
	b.t.Helper()
	var got map[string]int
	b.ask("look", &got)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s: pages by value %v, want %v", what, got, want)
	}
}

func runMemory(socket, pages string) error {
	n, err := strconv.Atoi(pages)
	if err != nil {
		return err
	}
	size := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, n*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	// The kernel marks a huge page as a whole.
	if err := unix.Madvise(m, unix.MADV_NOHUGEPAGE); err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		line := make([]byte, 4096)
		k, _ := conn.Read(line)
		answer, err := answerMemory(m, size, strings.Fields(string(line[:k])))
		if err != nil {
			answer = err.Error()
		}
		_ = json.NewEncoder(conn).Encode(answer)
		conn.Close()
	}
}

func answerMemory(m []byte, size int, words []string) (any, error) {
	switch {
	case len(words) == 4 && words[0] == "fill":
		var n [3]int
		for i := range n {
			var err error
			if n[i], err = strconv.Atoi(words[i+1]); err != nil {
				return nil, err
			}
		}
		part := m[n[1]*size : n[2]*size]
		for i := range part {
			part[i] = byte(n[0])
		}
		return n[2] - n[1], nil
	case len(words) == 1 && words[0] == "look":
		held := map[string]int{}
		for ; len(m) > 0; m = m[size:] {
			key := strconv.Itoa(int(m[0]))
			for _, b := range m[:size] {
				if b != m[0] {
					key = "mixed"
				}
			}
			held[key]++
		}
		return held, nil
	case len(words) == 1 && words[0] == "churn":
		go func() {
			for {
				_ = exec.Command("/program", memoryProgram, "/", "1").Run()
			}
		}()
		return 1, nil
	case len(words) == 2 && words[0] == "child":
		return 1, exec.Command("/program", memoryProgram, words[1], "256").Start()
	}
	return nil, fmt.Errorf("what is %q?", words)
}
