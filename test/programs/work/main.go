// Command work keeps one core busy, in four ways: matmul, sieve, hash or sort, each of the size given, and prints a
// figure that depends on all that it did. It compiles natively and to WASI, so that the two can be compared.
package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: work matmul|sieve|hash|sort SIZE")
		os.Exit(64)
	}
	size, err := strconv.Atoi(os.Args[2])
	work := map[string]func(int) string{"matmul": matmul, "sieve": sieve, "hash": hash, "sort": sorted}[os.Args[1]]
	if err != nil || size < 1 || work == nil {
		fmt.Fprintf(os.Stderr, "work: cannot do %q of size %q\n", os.Args[1], os.Args[2])
		os.Exit(64)
	}
	fmt.Println(work(size))
}

// matmul multiplies two matrices of size rows and columns, by rows, which is how they lie in memory.
func matmul(size int) string {
	r := random(1)
	a, b, c := make([]float64, size*size), make([]float64, size*size), make([]float64, size*size)
	for i := range a {
		a[i], b[i] = float64(r.next()%1000)/1000, float64(r.next()%1000)/1000
	}
	for i := range size {
		row := c[i*size : (i+1)*size]
		for k, x := range a[i*size : (i+1)*size] {
			other := b[k*size : (k+1)*size]
			for j := range row {
				row[j] += x * other[j]
			}
		}
	}
	trace := 0.0
	for i := range size {
		trace += c[i*size+i]
	}
	return strconv.FormatFloat(trace, 'f', 6, 64)
}

// sieve counts the primes up to size.
func sieve(size int) string {
	composite := make([]bool, size+1)
	count := 0
	for i := 2; i <= size; i++ {
		if composite[i] {
			continue
		}
		count++
		for j := i * i; j <= size; j += i {
			composite[j] = true
		}
	}
	return strconv.Itoa(count)
}

// hash is FNV-1a over size MiB.
func hash(size int) string {
	r, data := random(2), make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(r.next() >> 32)
	}
	h := uint64(0xcbf29ce484222325)
	for range size {
		for _, b := range data {
			h = (h ^ uint64(b)) * 0x100000001b3
		}
	}
	return strconv.FormatUint(h, 16)
}

// sorted sorts size numbers and returns the median.
func sorted(size int) string {
	r, v := random(3), make([]uint64, size)
	for i := range v {
		v[i] = r.next()
	}
	slices.Sort(v)
	return strconv.FormatUint(v[len(v)/2], 10)
}

// random is SplitMix64: the same numbers on every platform.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	x := uint64(*r)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
