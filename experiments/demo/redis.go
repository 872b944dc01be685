package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// redis is one connection to a redis-server, in its protocol RESP2
// (https://redis.io/docs/latest/develop/reference/protocol-spec/).
type redis struct {
	net.Conn
	r *bufio.Reader
}

// patience is how long an answer may take before the connection counts as dead.
const patience = 20 * time.Second

// dialRedis waits for a server that is still starting.
func dialRedis(ctx context.Context, address string) (*redis, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return &redis{conn, bufio.NewReader(conn)}, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// encode makes a command: an array of bulk strings.
func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// do sends commands in one go and returns the answer to each, as text.
func (c *redis) do(commands ...string) ([]string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() { // beside the answers, or both sides may wait with full buffers
		_, err := io.WriteString(c, strings.Join(commands, ""))
		sent <- err
	}()
	answers := make([]string, len(commands))
	for i := range commands {
		var err error
		if answers[i], err = readAnswer(c.r); err != nil {
			c.Close() // ends the writing too
			return nil, errors.Join(err, ignoreClosed(<-sent))
		}
	}
	return answers, <-sent
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// maxBulk is the protocol's own limit.
const maxBulk = 512 << 20

// readAnswer reads what can come in answer to the commands that are used here:
// a text, a number, a bulk string, nothing ("" as well), or an error.
func readAnswer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok || line == "" {
		return "", fmt.Errorf("read redis's answer: %q is not a line of its protocol", line)
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", fmt.Errorf("redis says: %s", rest)
	case '$':
		return readBulk(r, rest)
	}
	return "", fmt.Errorf("read redis's answer: unexpected %q", line)
}

func readBulk(r *bufio.Reader, length string) (string, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < -1 || n > maxBulk {
		return "", fmt.Errorf("read redis's answer: %q is not a length", length)
	}
	if n == -1 {
		return "", nil
	}
	// What comes decides how much memory is taken, not what was announced.
	var b strings.Builder
	if _, err := io.CopyN(&b, r, int64(n)+2); err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(b.String(), "\r\n")
	if !ok {
		return "", errors.New("read redis's answer: a string without its end")
	}
	return text, nil
}
