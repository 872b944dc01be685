package archive

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// upstream is the version that the authors gave, from that of a package:
// 1:7.3~rc7-1~exp1 is 7.3-rc7.
func upstream(version string) string {
	if _, rest, ok := strings.Cut(version, ":"); ok {
		version = rest
	}
	if i := strings.LastIndex(version, "-"); i >= 0 {
		version = version[:i]
	}
	return strings.ReplaceAll(version, "~", "-")
}

// compare orders versions by their numbers; 7.3-rc7 is before 7.3.
func compare(a, b string) int {
	an, arc := numbers(a)
	bn, brc := numbers(b)
	return cmp.Or(slices.Compare(an, bn), cmp.Compare(arc, brc))
}

// numbers are those of a version, and of its release candidate.
func numbers(version string) (list []int, rc int) {
	version, candidate, found := strings.Cut(version, "-rc")
	rc = 1 << 30
	if found {
		rc, _ = strconv.Atoi(candidate)
	}
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		list = append(list, n)
	}
	return list, rc
}

// inSeries holds for 6.12.113 in 6.12 and 7.3-rc7 in 7.3.
func inSeries(version, series string) bool {
	rest, ok := strings.CutPrefix(version, series)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '-')
}

// choose finds what is meant by a version: a whole release or package version,
// a version, or the newest of a series. Entries are sorted, the oldest first.
func choose(what, version string, entries []Entry) (Entry, error) {
	for _, same := range []func(e Entry) bool{
		func(e Entry) bool { return e.Release == version || e.Package == version },
		func(e Entry) bool { return e.Version == version },
		func(e Entry) bool { return inSeries(e.Version, version) },
		// 6.1.0-54, 6.12.113+deb13
		func(e Entry) bool {
			return strings.HasPrefix(e.Release, version+"-") || strings.HasPrefix(e.Release, version+"+")
		},
	} {
		for _, e := range slices.Backward(entries) {
			if version != "" && same(e) {
				return e, nil
			}
		}
	}
	return Entry{}, &Unknown{What: what, Version: version, Nearest: nearest(version, entries)}
}

// nearest is the version beside the one that is not there: the newer or the
// older neighbour, whichever has more of it in common, and then by distance.
func nearest(version string, entries []Entry) string {
	i := slices.IndexFunc(entries, func(e Entry) bool { return compare(e.Version, version) > 0 })
	switch {
	case len(entries) == 0:
		return ""
	case i < 0:
		return entries[len(entries)-1].Version
	case i == 0:
		return entries[0].Version
	}
	older, newer := entries[i-1].Version, entries[i].Version
	same, distance := apart(older, version)
	if sameNewer, distanceNewer := apart(newer, version); sameNewer > same || sameNewer == same && distanceNewer < distance {
		return newer
	}
	return older
}

// apart counts the leading numbers that two versions share, and says how far
// the next ones are from each other.
func apart(a, b string) (same, distance int) {
	an, _ := numbers(a)
	bn, _ := numbers(b)
	for same < min(len(an), len(bn)) && an[same] == bn[same] {
		same++
	}
	if same < min(len(an), len(bn)) {
		distance = max(an[same]-bn[same], bn[same]-an[same])
	}
	return same, distance
}
