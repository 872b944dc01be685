package lab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed plugin/count.c
var pluginSource string

// pluginAPIs are the versions of QEMU's interface for which the source has
// something different, in the order in which they are tried: 7 (QEMU 11) changes
// what is called for a translation, 3 (9.1) how an instruction's bytes are read.
// QEMU takes plug-ins that say a version from some minimum to its own, so that
// one for 3 must not say 2. See include/qemu/qemu-plugin.h.
var pluginAPIs = []int{7, 3, 2, 1}

// BuildPlugin gives the plug-in that counts, as QEMU's -plugin takes it. It is
// compiled if dir does not have one for this QEMU, and QEMU has loaded it once
// before it is kept there. That takes a second and needs a C compiler.
func BuildPlugin(ctx context.Context, q *QEMU, dir string) (string, error) {
	version, err := q.Version(ctx)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(pluginSource + version))
	plugin := filepath.Join(dir, "count-"+hex.EncodeToString(key[:8])+".so")
	if _, err := os.Stat(plugin); err == nil {
		return plugin, nil
	}
	if err := buildPlugin(ctx, q, plugin); err != nil {
		return "", err
	}
	return plugin, nil
}

func buildPlugin(ctx context.Context, q *QEMU, plugin string) error {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return &Fault{
			Op: "build the plug-in that counts", Err: errors.New("there is no C compiler (cc) in PATH"), Remedy: "install gcc",
		}
	}
	if err := os.MkdirAll(filepath.Dir(plugin), 0o755); err != nil {
		return &Fault{Op: "build the plug-in that counts", Err: err}
	}
	work, err := os.MkdirTemp(filepath.Dir(plugin), ".new-")
	if err != nil {
		return &Fault{Op: "build the plug-in that counts", Err: err}
	}
	defer os.RemoveAll(work)
	for _, api := range pluginAPIs {
		try := filepath.Join(work, fmt.Sprintf("count-%d.so", api))
		if err = compilePlugin(ctx, compiler, api, try); err != nil {
			return &Fault{Op: "build the plug-in that counts", Err: err, Remedy: "install gcc and libc6-dev"}
		}
		if err = q.try(ctx, "-accel", "tcg", "-plugin", pluginOption(try, os.DevNull)); err == nil {
			return os.Rename(try, plugin)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return &Fault{Op: "load the plug-in that counts", Err: err, Remedy: "use a QEMU that was built with plug-ins (--enable-plugins)"}
}

func compilePlugin(ctx context.Context, compiler string, api int, out string) error {
	cmd := exec.CommandContext(ctx, compiler, "-shared", "-fPIC", "-fvisibility=hidden", "-O2", fmt.Sprintf("-DAPI=%d", api), "-o", out, "-x", "c", "-")
	cmd.Stdin = strings.NewReader(pluginSource)
	said, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w: %s", compiler, err, strings.TrimSpace(string(said)))
	}
	return errors.Join(err, ctx.Err())
}
