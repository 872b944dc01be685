package timeline

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/protobuf/proto"

	"crucible/proto/imagepb"
)

var update = flag.Bool("update", false, "write the golden files")

// sample is a checkpoint as it is recorded, with the log of [criu.Spans]'s tests.
func sample() *imagepb.Timeline {
	at := func(ms float64) int64 { return int64(ms * 1e6) }
	phase := func(name string, start, end float64, frozen bool, track string) *imagepb.Phase {
		return &imagepb.Phase{Name: name, StartNs: at(start), DurationNs: at(end) - at(start), Frozen: frozen, Track: track}
	}
	return &imagepb.Timeline{
		StartedUnixNs: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC).UnixNano(), EndedNs: at(44),
		Phases: []*imagepb.Phase{
			phase("start the program", 0, 1.5, false, ""), phase("preflight", 1.5, 5, false, ""), phase("CRIU's own preparation", 5, 10, false, ""),
			phase("prepare draft", 5.2, 7, false, "beside"), phase("prepare parking", 6, 8.5, false, "beside"),
			phase("freeze", 10, 10.3, true, ""), phase("CRIU dump", 10.3, 36.5, true, ""), phase("read /proc", 10.4, 12, true, "beside"),
			phase("CRIU lets go", 36.5, 37, true, ""), phase("thaw", 37, 37.5, false, ""), phase("digests", 37.5, 42, false, ""),
		},
		Marks: []*imagepb.Mark{
			{Event: "pre-dump", AskedNs: at(8.13), AnsweredNs: at(9.64), LogBytes: 850},
			{Event: "query-ext-files", AskedNs: at(10.77), AnsweredNs: at(11.32), LogBytes: 4704},
			{Event: "post-dump", AskedNs: at(34.99), AnsweredNs: at(35.51), LogBytes: 41814},
		},
	}
}

func sampleTrace(t testing.TB, title string) *Trace {
	t.Helper()
	log, err := os.ReadFile("../criu/testdata/spans/dump.log")
	if err != nil {
		t.Fatal(err)
	}
	trace, err := Join(sample(), bytes.NewReader(log), Options{Title: title})
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

func golden(t *testing.T, name string, write func(io.Writer) error) []byte {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	file := "testdata/" + name
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, got.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("not as in %s (%v):\n%s", file, err, got.String())
	}
	return got.Bytes()
}

func TestText(t *testing.T) {
	trace := sampleTrace(t, "checkpoint web@1")
	text := golden(t, "bars.txt", func(w io.Writer) error { return trace.WriteText(w, TextOptions{}) })
	for line := range strings.Lines(string(text)) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	var wide bytes.Buffer
	if err := trace.WriteText(&wide, TextOptions{Width: 160, Colours: true, All: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(wide.String(), "\x1b[36m█") || strings.Contains(wide.String(), "not shown") || strings.Contains(wide.String(), "=") {
		t.Errorf("on a terminal:\n%s", wide.String())
	}
}

// A task may call itself anything.
func TestTextHarmless(t *testing.T) {
	trace := &Trace{Title: "x\x1b[2J", Total: time.Second, Tracks: []Track{{Name: "task 1 \x1b]0;evil\a", Kind: Task, Spans: []Span{{Name: "a\rb", Duration: time.Second}}}}}
	var out bytes.Buffer
	if err := trace.WriteText(&out, TextOptions{}); err != nil || strings.ContainsAny(out.String(), "\x1b\a\r") {
		t.Errorf("%q %v", out.String(), err)
	}
}

// The bytes of sample's marks lie between those lines of the log that CRIU
// wrote before and after the questions, so that its times are known well.
func TestJoin(t *testing.T) {
	trace := sampleTrace(t, "x")
	if trace.Margin < 10*time.Microsecond || trace.Margin > 100*time.Microsecond {
		t.Errorf("margin %v", trace.Margin)
	}
	if got := trace.Accounted; got != 42*time.Millisecond {
		t.Errorf("accounted for %v", got)
	}
	if got := trace.Frozen; got != 27*time.Millisecond {
		t.Errorf("frozen %v", got)
	}
	var kinds []Kind
	for _, track := range trace.Tracks {
		kinds = append(kinds, track.Kind)
	}
	if fmt.Sprint(kinds) != "[command beside beside questions criu task task]" {
		t.Errorf("tracks %v", kinds)
	}
	memory := 0
	for _, s := range trace.Tracks[5].Spans {
		if s.Name == "write memory" && s.Bytes == s.Pages*4096 && s.Pages > 1000 && s.Depth == 1 {
			memory++
		}
	}
	if memory != 1 || trace.Tracks[5].Name != "task 13503 python3" {
		t.Errorf("task %+v", trace.Tracks[5])
	}
}

// Without times in the log, the questions tell what they can.
func TestJoinQuiet(t *testing.T) {
	line := sample()
	trace, err := Join(line, strings.NewReader("Error (criu/x.c:1): no matter\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, track := range trace.Tracks {
		for _, s := range track.Spans {
			if track.Kind == CRIU {
				names += s.Name + ";"
			}
		}
	}
	if names != "seize the tasks;dump the tasks;" {
		t.Errorf("%q", names)
	}
	if trace, err = Join(line, nil, Options{}); err != nil || len(trace.Tracks) != 3 || trace.Margin != 0 {
		t.Errorf("without a log: %+v %v", trace, err)
	}
}

func TestPerfetto(t *testing.T) {
	trace := sampleTrace(t, "checkpoint web@1")
	data := golden(t, "perfetto.json", trace.WritePerfetto)
	checkPerfetto(t, data)
}

// checkPerfetto: what the Perfetto UI needs, and that spans of one thread lie in
// each other or apart.
func checkPerfetto(t *testing.T, data []byte) {
	t.Helper()
	var file struct {
		TraceEvents []struct {
			Name, Ph string
			Ts, Dur  *float64
			Pid, Tid *int
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	type thread struct{ pid, tid int }
	named, open := map[thread]bool{}, map[thread][][2]float64{}
	for _, e := range file.TraceEvents {
		if e.Pid == nil || e.Tid == nil || e.Name == "" {
			t.Fatalf("event %+v", e)
		}
		at := thread{*e.Pid, *e.Tid}
		switch e.Ph {
		case "M":
			named[at] = named[at] || e.Name == "thread_name"
		case "X":
			if e.Ts == nil || e.Dur == nil || *e.Ts < 0 || *e.Dur < 0 || !named[at] {
				t.Fatalf("event %+v", e)
			}
			stack := open[at]
			for len(stack) > 0 && stack[len(stack)-1][1] <= *e.Ts+0.0005 {
				stack = stack[:len(stack)-1]
			}
			if n := len(stack); n > 0 && *e.Ts+*e.Dur > stack[n-1][1]+0.0005 {
				t.Errorf("%s at %g for %g crosses the end of another at %g", e.Name, *e.Ts, *e.Dur, stack[n-1][1])
			}
			open[at] = append(stack, [2]float64{*e.Ts, *e.Ts + *e.Dur})
		default:
			t.Errorf("phase %q", e.Ph)
		}
	}
}

func TestHTML(t *testing.T) {
	trace := sampleTrace(t, "checkpoint web@1")
	checkHTML(t, golden(t, "page.html", trace.WriteHTML))
	evil := `<script>alert(1)</script>"' onload=x &amp;` + "\x00\xff\x1b"
	trace.Title = evil
	trace.Tracks[5].Name = evil
	trace.Tracks[5].Spans[0].Name = evil
	var out bytes.Buffer
	if err := trace.WriteHTML(&out); err != nil {
		t.Fatal(err)
	}
	checkHTML(t, out.Bytes())
	if strings.Contains(out.String(), "<script") || !strings.Contains(out.String(), "&lt;script&gt;") {
		t.Error("a name became a tag")
	}
}

// checkHTML: every tag is closed in its turn, attributes are known ones, the
// drawing is XML, and nothing comes from elsewhere.
func checkHTML(t testing.TB, page []byte) {
	t.Helper()
	if _, err := html.Parse(bytes.NewReader(page)); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for name := range strings.FieldsSeq("charset class content d height lang name role rx viewbox width x x1 x2 xmlns y y1 y2") {
		known[name] = true
	}
	var open []string
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			break
		}
		token := z.Token()
		for _, a := range token.Attr {
			if !known[a.Key] || strings.Contains(a.Val, "://") && a.Key != "xmlns" {
				t.Errorf("attribute %s=%q of %s", a.Key, a.Val, token.Data)
			}
		}
		switch kind {
		case html.StartTagToken:
			if token.Data != "meta" {
				open = append(open, token.Data)
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("</%s> closes %v", token.Data, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("open at the end: %v", open)
	}
	_, drawing, _ := bytes.Cut(page, []byte("<svg"))
	drawing, _, _ = bytes.Cut(drawing, []byte("</svg>"))
	d := xml.NewDecoder(strings.NewReader("<svg" + string(drawing) + "</svg>"))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing: %v", err)
		}
	}
}

// FuzzJoin reads any timeline with any log, and draws it.
func FuzzJoin(f *testing.F) {
	data, err := proto.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	for _, op := range []string{"dump", "restore"} {
		log, err := os.ReadFile("../criu/testdata/spans/" + op + ".log")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, log)
	}
	f.Add([]byte{}, []byte("(00.1) Dumping task (pid: 3 comm: )\n"))
	f.Fuzz(func(t *testing.T, raw, log []byte) {
		var line imagepb.Timeline
		if proto.Unmarshal(raw, &line) != nil {
			return
		}
		trace, err := Join(&line, bytes.NewReader(log), Options{Title: "x", Tasks: map[int]string{1: "<b>"}})
		if err != nil {
			t.Fatal(err)
		}
		if share := trace.Share(); share < 0 || share > 1.000001 {
			t.Errorf("%g accounted for", share)
		}
		var text, trace2, page bytes.Buffer
		if err := errors.Join(trace.WriteText(&text, TextOptions{All: true}), trace.WritePerfetto(&trace2), trace.WriteHTML(&page)); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(trace2.Bytes()) {
			t.Errorf("no JSON: %s", trace2.Bytes())
		}
		checkHTML(t, page.Bytes())
		if most := 4096 + 2048*(len(raw)+len(log)); page.Len() > most {
			t.Errorf("%d bytes of a page from %d", page.Len(), len(raw)+len(log))
		}
	})
}
