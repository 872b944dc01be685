// Package secrets finds what an image gives away: an image is the memory of
// processes, and has their keys, tokens and passwords.
//
//	all, err := secrets.Scan(ctx, image)
//	for _, f := range all {
//		fmt.Println(f.Kind, f.Pid, f.Excerpt)
//	}
//
// It looks at the memory that was dumped, at the environment of each process,
// and at the files that the container wrote. A secret is found by its form: the
// rules are those in rules.go, and know no others. A password in memory has no
// form; one in the environment is known by its variable's name.
//
// It shows the beginning of a secret, enough to recognise it by who knows it.
package secrets
