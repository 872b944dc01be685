// Package name says what a container may be called. The name is a directory
// of containers/ and of images/, a part of cgroup paths and of host links'
// aliases, and a host name; "name@N" is the Nth image of a container.
//
//	if err := name.ValidName("web-1"); err != nil {
//		return err // name "a/b": may hold letters, digits, "_", "." and "-", not "/"
//	}
//
// It does not say whether a container of that name exists.
package name
