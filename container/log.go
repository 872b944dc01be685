package container

import (
	"bytes"
	"os"
	"time"
)

// logWriter writes a container's output in the form that the Kubernetes
// container runtime interface gave to logs, so that other tools read it too:
//
//	2026-01-02T15:04:05.000000000Z stdout F a whole line
//	2026-01-02T15:04:05.000000000Z stdout P a part of a line that goes on
//
// A disk that is full costs log lines and never stops the container.
type logWriter struct {
	path string
	file *os.File  // opened when there is something to write
	rest [3][]byte // by stream, what came after the last newline
}

// maxLine is where a line is cut in parts.
const maxLine = 16 << 10

func (l *logWriter) write(stream int, data []byte) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z")
	var out []byte
	rest := append(l.rest[stream], data...)
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 && len(rest) < maxLine {
			break
		}
		if i < 0 {
			out = appendLine(out, now, stream, 'P', rest[:maxLine])
			rest = rest[maxLine:]
			continue
		}
		out = appendLine(out, now, stream, 'F', rest[:i])
		rest = rest[i+1:]
	}
	l.rest[stream] = append(l.rest[stream][:0], rest...)
	l.append(out)
}

func (l *logWriter) append(out []byte) {
	if len(out) == 0 {
		return
	}
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return
		}
		l.file = f
	}
	_, _ = l.file.Write(out)
}

// flush writes what has no newline at its end.
func (l *logWriter) flush() {
	for stream, rest := range l.rest {
		if len(rest) > 0 {
			now := time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z")
			l.append(appendLine(nil, now, stream, 'P', rest))
		}
		l.rest[stream] = nil
	}
}

func appendLine(out []byte, now string, stream int, kind byte, text []byte) []byte {
	out = append(out, now...)
	out = append(out, [3]string{" stdin ", " stdout ", " stderr "}[stream]...)
	out = append(out, kind, ' ')
	out = append(out, text...)
	return append(out, '\n')
}

// LogLine is one line of a container's log.
type LogLine struct {
	Time   string `json:"time"` // RFC 3339 with nanoseconds, UTC
	Stream string `json:"stream"`
	Part   bool   `json:"part,omitempty"` // the line goes on in the next one
	Text   string `json:"text"`
}

// ParseLogLine reads a line as logWriter writes it.
func ParseLogLine(line string) (LogLine, bool) {
	var l LogLine
	fields := bytes.SplitN([]byte(line), []byte(" "), 4)
	if len(fields) != 4 || len(fields[2]) != 1 {
		return l, false
	}
	l.Time, l.Stream, l.Part, l.Text = string(fields[0]), string(fields[1]), fields[2][0] == 'P', string(fields[3])
	return l, true
}
