package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Message is what the guest says on its second serial port: one JSON object a
// line, with one of these in it.
type Message struct {
	Ready  *Ready          `json:"ready,omitempty"`
	Alive  bool            `json:"alive,omitempty"`  // once a second, so that silence means something
	Begin  string          `json:"begin,omitempty"`  // a part of the job starts: a case's name
	Result json.RawMessage `json:"result,omitempty"` // what that part found, in the job's own form
	Stdout []byte          `json:"stdout,omitempty"`
	Stderr []byte          `json:"stderr,omitempty"`
	Kernel []string        `json:"kernel,omitempty"` // complaints in the kernel's log
	Fault  string          `json:"fault,omitempty"`  // the guest cannot do the job, and why
	File   *Chunk          `json:"file,omitempty"`
	End    *End            `json:"end,omitempty"`
}

// Ready says that the guest is set up.
type Ready struct {
	Release string        `json:"release"` // uname -r
	Version string        `json:"version"` // uname -v
	Uptime  time.Duration `json:"uptime"`  // since the kernel's start, nanoseconds
	Absent  []string      `json:"absent,omitempty"`
}

// Chunk is a part of a file of the results folder, in order.
type Chunk struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
}

// End is the last message of a job that was done.
type End struct {
	Status int `json:"status"` // the program's exit status; 0 for cases
}

// maxLine bounds what one line of a guest can make the host allocate.
const maxLine = 4 << 20

// readMessages calls handle for each message until the stream ends. A kernel
// that was told so may print on the port, too: a line that is no message is
// given to stray.
func readMessages(r io.Reader, handle func(Message) error, stray func(line []byte)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		var m Message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			stray(lines.Bytes())
			continue
		}
		if err := handle(m); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return fmt.Errorf("read the guest's messages: %w", err)
	}
	return nil
}
