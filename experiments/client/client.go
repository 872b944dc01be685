// Package client is what feels an outage: one TCP connection to a server that
// sends back what it gets, over which a question goes a millisecond after the last
// one, and the times of the answers.
package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Client asks a server over one TCP connection, a thousand times a second, and
// remembers when it got its answers.
type Client struct {
	conn    net.Conn
	lock    sync.Mutex
	answers []time.Time
	done    chan struct{}
	failed  error
}

// Dial connects, and begins to ask.
func Dial(address string) (*Client, error) {
	dialer := net.Dialer{Timeout: time.Second}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.Dial("tcp4", address)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, done: make(chan struct{})}
	go c.play()
	return c, nil
}

func (c *Client) play() {
	defer close(c.done)
	ball := make([]byte, 8)
	for {
		begin := time.Now()
		_, err := c.conn.Write(ball)
		if err == nil {
			_, err = io.ReadFull(c.conn, ball)
		}
		now := time.Now()
		c.lock.Lock()
		if err != nil {
			c.failed = err
			c.lock.Unlock()
			return
		}
		c.answers = append(c.answers, now)
		c.lock.Unlock()
		time.Sleep(time.Millisecond - now.Sub(begin))
	}
}

// Close ends the connection.
func (c *Client) Close() {
	c.conn.Close()
	<-c.done
}

// lost is how long a connection may be silent: a retransmission after seconds
// is a result, one after minutes is none.
const lost = 10 * time.Second

// Enough waits for so many answers after a moment.
func (c *Client) Enough(after time.Time, count int) error {
	timeout := time.After(lost)
	for {
		c.lock.Lock()
		n, err := 0, c.failed
		for i := len(c.answers) - 1; i >= 0 && c.answers[i].After(after); i-- {
			n++
		}
		c.lock.Unlock()
		switch {
		case n >= count:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			return fmt.Errorf("the connection was lost: %w", err)
		}
		select {
		case <-timeout:
			return fmt.Errorf("no answer for %v", lost)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Longest is the longest time without an answer since a moment.
func (c *Client) Longest(since time.Time) time.Duration {
	c.lock.Lock()
	defer c.lock.Unlock()
	return longestGap(c.answers, since)
}

// longestGap is the longest time between two answers, the second of which came
// after a moment.
func longestGap(answers []time.Time, since time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(answers); i++ {
		if answers[i].After(since) {
			longest = max(longest, answers[i].Sub(answers[i-1]))
		}
	}
	return longest
}
