// Package namespaces fills in what an image says of its namespaces
// (namespaces.pb) from what CRIU has written: the clocks, System V IPC and its
// sysctls. The rest crucible finds out itself.
//
//	err := namespaces.Complete(dir, &n, &processes) // dir: CRIU's files
//
// # What it does not do
//
// It does not read what is in shared memory, semaphores and queues.
package namespaces
