package archive

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// source is a mirror of Debian that the machine uses.
type source struct {
	uri      string
	security bool // of the security archive, whose suites have names of their own
	signedBy string
}

// suites are the names that Debian's archive gives to what it has; a mirror
// may have less. The earlier ones are older.
func suites(security bool) []string {
	if security {
		return []string{"oldoldstable-security", "oldstable-security", "stable-security"}
	}
	return []string{
		"oldoldstable", "oldstable", "oldstable-backports", "stable", "stable-backports",
		"testing", "unstable", "experimental",
	}
}

// machineSources asks the machine's own apt where it gets Debian from.
func machineSources(ctx context.Context) ([]source, error) {
	cmd := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(REPO_URI)\t$(RELEASE)\t$(ORIGIN)\t$(SOURCESENTRY)", "Created-By: Packages", "Component: main")
	stdout, stderr := start(cmd)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("apt-get indextargets: %w: %s", err, complaint(stderr.Bytes()))
	}
	debian := isDebian()
	var list []source
	for line := range strings.Lines(stdout.String()) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) != 4 {
			continue
		}
		uri, release, origin, entry := fields[0], fields[1], fields[2], fields[3]
		// Without lists apt does not know the origin, and repeats the question.
		if !strings.HasPrefix(origin, "Debian") && !(debian && strings.HasPrefix(origin, "$(")) {
			continue
		}
		s := source{uri: uri, security: strings.HasSuffix(release, "-security")}
		if slices.ContainsFunc(list, func(l source) bool { return l.security == s.security }) {
			continue
		}
		s.signedBy = signedBy(entry, uri)
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil, &NoApt{Why: "its sources have no Debian archive"}
	}
	return list, nil
}

func isDebian() bool {
	data, _ := os.ReadFile("/etc/os-release")
	return slices.Contains(strings.Split(string(data), "\n"), "ID=debian")
}

// signedBy is the key that the machine's sources name for a mirror, a file or
// the key itself; "" if it is one of apt's trusted keys. entry is FILE:NUMBER.
func signedBy(entry, uri string) string {
	file := entry[:max(0, strings.LastIndex(entry, ":"))]
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	if filepath.Ext(file) == ".sources" {
		return signedBy822(data, uri)
	}
	return signedByLine(data, uri)
}

// signedBy822 looks into stanzas as sources.list(5) has them. A key goes on in
// lines that begin with a space.
func signedBy822(data []byte, uri string) string {
	for stanza := range strings.SplitSeq(string(data), "\n\n") {
		var key string
		var here, inKey bool
		for line := range strings.Lines(stanza) {
			name, value, _ := strings.Cut(line, ":")
			switch {
			case strings.HasPrefix(line, "#"):
			case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
				if inKey {
					key += line
				}
			default:
				inKey = strings.EqualFold(name, "Signed-By")
				if inKey {
					key = value
				}
				if strings.EqualFold(name, "URIs") {
					here = slices.ContainsFunc(strings.Fields(value), func(u string) bool { return sameURI(u, uri) })
				}
			}
		}
		if here && key != "" {
			return strings.TrimSpace(key)
		}
	}
	return ""
}

// signedByLine looks into lines like "deb [signed-by=FILE arch=amd64] URI SUITE main".
func signedByLine(data []byte, uri string) string {
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		rest, ok := strings.CutPrefix(strings.TrimSpace(s.Text()), "deb ")
		options, rest, bracket := strings.Cut(rest, "]")
		if !ok || !bracket || len(strings.Fields(rest)) == 0 || !sameURI(strings.Fields(rest)[0], uri) {
			continue
		}
		for option := range strings.FieldsSeq(strings.Trim(options, " [")) {
			if key, ok := strings.CutPrefix(option, "signed-by="); ok {
				return key
			}
		}
	}
	return ""
}

func sameURI(a, b string) bool { return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/") }

// stanzas are the lines of a .sources file for some suites.
func stanzas(sources []source, names []string) string {
	var text strings.Builder
	for _, s := range sources {
		var has []string
		for _, name := range suites(s.security) {
			if slices.Contains(names, name) {
				has = append(has, name)
			}
		}
		if len(has) == 0 {
			continue
		}
		fmt.Fprintf(&text, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nTargets: Packages\n", s.uri, strings.Join(has, " "))
		switch {
		case strings.Contains(s.signedBy, "\n"): // the key itself
			fmt.Fprintf(&text, "Signed-By:\n %s\n", s.signedBy)
		case s.signedBy != "":
			fmt.Fprintf(&text, "Signed-By: %s\n", s.signedBy)
		}
		text.WriteString("\n")
	}
	return text.String()
}
