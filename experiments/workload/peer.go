package workload

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"crucible/checkpoint"
	"crucible/restore"
)

func (s *stage) address() (string, error) {
	if s.box.State.Attachment == nil {
		return "", fmt.Errorf("the container has no address")
	}
	return fmt.Sprintf("%s:%d", s.box.State.Attachment.Address.Addr(), serverPort), nil
}

func (s *stage) dial(ctx context.Context, kind string) error {
	address, err := s.address()
	if err != nil {
		return err
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	if s.peer, err = d.DialContext(ctx, kind, address); err != nil {
		return err
	}
	if c, ok := s.peer.(*net.TCPConn); ok { // a window that is soon full
		if err := c.SetReadBuffer(16 << 10); err != nil {
			return err
		}
	}
	return s.peer.SetDeadline(deadline(ctx))
}

func deadline(ctx context.Context) time.Time {
	t, _ := ctx.Deadline() // zero for none
	return t
}

func connectOutside(ctx context.Context, s *stage) error {
	if err := s.await(ctx, saysListens); err != nil {
		return err
	}
	if err := s.dial(ctx, "tcp4"); err != nil {
		return err
	}
	_, err := io.WriteString(s.peer, beforehand)
	return err
}

func talkMeanwhile(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if _, err := io.WriteString(s.peer, meanwhile); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	if err := s.tell(ctx); err != nil {
		return err
	}
	echo := make([]byte, len(beforehand+meanwhile))
	if _, err := io.ReadFull(s.peer, echo); err != nil {
		return fmt.Errorf("read the echo: %w", err)
	}
	return first(same("echo", string(echo), beforehand+meanwhile), s.end(ctx))
}

func readAfterwards(ctx context.Context, s *stage) error {
	if err := restored(ctx, s); err != nil {
		return err
	}
	got := make([]byte, unsent)
	if n, err := io.ReadFull(s.peer, got); err != nil {
		return fmt.Errorf("read %d bytes of %d: %w", n, unsent, err)
	}
	return first(same("what was sent", got, pattern(unsent, 1)), s.end(ctx))
}

func restored(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return s.tell(ctx)
}

func closeOutside(ctx context.Context, s *stage) error {
	if err := connectOutside(ctx, s); err != nil {
		return err
	}
	return s.peer.(*net.TCPConn).CloseWrite()
}

func hearTheEnd(ctx context.Context, s *stage) error {
	if err := restored(ctx, s); err != nil {
		return err
	}
	got, err := io.ReadAll(s.peer)
	return first(err, same("answer", string(got), "answer"), s.end(ctx))
}

func sendAfterTheEnd(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	if _, err := io.WriteString(s.peer, meanwhile); err != nil {
		return err
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	if err := s.goOn(ctx); err != nil {
		return err
	}
	got, err := io.ReadAll(s.peer)
	return first(err, same("data from the side that was closed", len(got), 0))
}

func greetOutside(ctx context.Context, s *stage) error {
	if err := s.await(ctx, saysListens); err != nil {
		return err
	}
	if err := s.dial(ctx, "udp4"); err != nil {
		return err
	}
	_, err := s.peer.Write([]byte{greeting})
	return err
}

func sendMeanwhile(ctx context.Context, s *stage) error {
	if err := s.checkpoint(ctx, checkpoint.Options{}); err != nil {
		return err
	}
	for n := range byte(datagrams) {
		if _, err := s.peer.Write([]byte{n}); err != nil {
			return err
		}
	}
	if err := s.restore(ctx, restore.Options{}); err != nil {
		return err
	}
	return s.goOn(ctx)
}
