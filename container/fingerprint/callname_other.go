//go:build !amd64

package fingerprint

func callNameHere(int) string { return "" }
