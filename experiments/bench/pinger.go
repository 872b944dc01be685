package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// pinger asks a server over one TCP connection, a thousand times a second,
// and remembers when it got its answers.
type pinger struct {
	conn    net.Conn
	lock    sync.Mutex
	answers []time.Time
	done    chan struct{}
	failed  error
}

// newPinger connects. What it waits for next is whatever the peer sends.
func newPinger(address string) (*pinger, error) {
	dialer := net.Dialer{Timeout: time.Second}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.Dial("tcp4", address)
	if err != nil {
		return nil, err
	}
	p := &pinger{conn: conn, done: make(chan struct{})}
	go p.play()
	return p, nil
}

func (p *pinger) play() {
	defer close(p.done)
	ball := make([]byte, 8)
	for {
		begin := time.Now()
		_, err := p.conn.Write(ball)
		if err == nil {
			_, err = io.ReadFull(p.conn, ball)
		}
		now := time.Now()
		p.lock.Lock()
		if err != nil {
			p.failed = err
			p.lock.Unlock()
			return
		}
		p.answers = append(p.answers, now)
		p.lock.Unlock()
		time.Sleep(time.Millisecond - now.Sub(begin))
	}
}

func (p *pinger) close() {
	p.conn.Close()
	<-p.done
}

// lost is how long a connection may be silent: a retransmission after seconds
// is a result, one after minutes is none.
const lost = 10 * time.Second

// enough waits for so many answers after a moment.
func (p *pinger) enough(after time.Time, count int) error {
	timeout := time.After(lost)
	for {
		p.lock.Lock()
		n, err := 0, p.failed
		for i := len(p.answers) - 1; i >= 0 && p.answers[i].After(after); i-- {
			n++
		}
		p.lock.Unlock()
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

// longest is the longest time without an answer since a moment.
func (p *pinger) longest(since time.Time) time.Duration {
	p.lock.Lock()
	defer p.lock.Unlock()
	return longestGap(p.answers, since)
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
