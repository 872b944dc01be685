// Command goserver is a small net/http server: goroutines, timers, a map and
// connections that stay open are what a test finds again after a restore.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"sync"
	"time"
)

func main() {
	var mu sync.Mutex
	seen := map[string]int{}
	ticks, handed := 0, 0
	work := make(chan int)
	go func() {
		for n := range work {
			mu.Lock()
			handed = n
			mu.Unlock()
		}
	}()
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			mu.Lock()
			ticks++
			n := ticks
			mu.Unlock()
			work <- n
		}
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.URL.Path]++
		_ = json.NewEncoder(w).Encode(map[string]any{"ticks": ticks, "handed": handed, "seen": seen})
	})
	log.Fatal(http.ListenAndServe(":8000", nil))
}
