package report

import (
	"bytes"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crucible/container/testenv"
)

// A browser shows the page in light and in dark, and prints it. What it wants to
// load from elsewhere, or cannot read, it would tell.
func TestPageInBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		testenv.Skip(t, "chromium is not installed: scripts/setup --tests")
	}
	dir := t.TempDir()
	page := filepath.Join(dir, "page.html")
	var b bytes.Buffer
	if err := New(results(t, 1)).WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), browser, append(append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + filepath.Join(dir, "profile"),
			"--host-resolver-rules=MAP * ~NOTFOUND"}, args...), "file://"+page)...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
	if dom := run("--dump-dom"); strings.Count(dom, "</svg>") != 5 || !strings.Contains(dom, "10.2 ms .. 10.9 ms") {
		t.Errorf("%d figures in what the browser made of it", strings.Count(dom, "</svg>"))
	}
	for scheme, want := range map[string]color.RGBA{"0": {0x0d, 0x11, 0x17, 0xff}, "1": {0xff, 0xff, 0xff, 0xff}} { // dark, light
		shot := filepath.Join(dir, scheme+".png")
		run("--blink-settings=preferredColorScheme="+scheme, "--window-size=400,300", "--screenshot="+shot)
		f, err := os.Open(shot)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := color.RGBAModel.Convert(img.At(2, 2)); got != want {
			t.Errorf("the ground is %v, not %v", got, want)
		}
	}
	run("--print-to-pdf=" + filepath.Join(dir, "page.pdf"))
	if pdf, err := os.ReadFile(filepath.Join(dir, "page.pdf")); err != nil || !bytes.HasPrefix(pdf, []byte("%PDF")) {
		t.Errorf("printed: %v", err)
	}
}
