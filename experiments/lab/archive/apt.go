package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// apt is a private set-up of the machine's apt: the same mirror and keys, its
// own lists and cache, nothing installed. It needs no rights.
type apt struct {
	dir     string
	lock    *os.File
	sources []source
}

// newApt writes the configuration. Its programs hold the lock.
func newApt(ctx context.Context, dir string, lock *os.File) (*apt, error) {
	for _, program := range []string{"apt-get", "dpkg-deb", helper} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, &NoApt{Why: fmt.Sprintf("no %s", filepath.Base(program))}
		}
	}
	if strings.ContainsAny(dir, "\"\n") {
		return nil, fmt.Errorf("lab cache %q: apt cannot use a directory of such a name", dir)
	}
	a := &apt{dir: dir, lock: lock}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("lab cache: %w", err)
		}
	}
	if err := sweep(dir); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, "status"), nil); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, "apt.conf"), []byte(configuration(dir))); err != nil {
		return nil, err
	}
	var err error
	a.sources, err = machineSources(ctx)
	return a, err
}

const helper = "/usr/lib/apt/apt-helper"

// configuration is read after the machine's own, see apt.conf(5). What hooks
// say is for the machine's own lists.
func configuration(dir string) string {
	return strings.ReplaceAll(`Dir::State "DIR/state";
Dir::State::lists "DIR/state/lists";
Dir::State::status "DIR/status";
Dir::State::extended_states "DIR/state/extended_states";
Dir::Cache "DIR/cache";
Dir::Cache::archives "DIR/cache/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Log "DIR/state";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures { "amd64"; };
#clear APT::Default-Release;
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "1";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
`, "DIR", dir)
}

// use is the option that limits apt to some suites. name is for the file.
func (a *apt) use(name string, suites ...string) (string, error) {
	file := filepath.Join(a.dir, name+".sources")
	if err := writeFile(file, []byte(stanzas(a.sources, suites))); err != nil {
		return "", err
	}
	return "-oDir::Etc::SourceList=" + file, nil
}

// run calls a program in a directory. What it says is in the error.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	out, errout, err := a.try(ctx, dir, program, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(program), err, complaint(errout))
	}
	return out, nil
}

func (a *apt) try(ctx context.Context, dir, program string, args ...string) (out, errout []byte, err error) {
	if program != "dpkg-deb" {
		args = append([]string{"-q", "-c", filepath.Join(a.dir, "apt.conf")}, args...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.ExtraFiles = []*os.File{a.lock}
	stdout, stderr := start(cmd)
	err = cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return stdout.Bytes(), stderr.Bytes(), err
}

// start prepares a program that is ended with all that it has started, and
// speaks English.
func start(cmd *exec.Cmd) (stdout, stderr *bytes.Buffer) {
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second // then it is killed
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return stdout, stderr
}

// complaint is the first error that apt wrote, else the last line.
func complaint(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "E: "); ok {
			return rest
		}
	}
	return lines[len(lines)-1]
}

// writeFile replaces a file in one step, if it is not the same already.
func writeFile(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), unfinished+"*")
	if err != nil {
		return fmt.Errorf("lab cache: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("lab cache: %w", err)
	}
	return nil
}
