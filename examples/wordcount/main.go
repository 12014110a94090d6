// Command wordcount is an example of a program for the network: it counts words and prints the most frequent ones as a
// table. It reads the files in /in, which are the task's input files, or stdin where there are none.
//
//	shallot run wasm wordcount.wasm --input book.txt -- -top 5
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

func main() {
	top := flag.Int("top", 10, "how many words to print")
	dir := flag.String("dir", "/in", "directory of input files")
	flag.Parse()
	counts := make(map[string]int)
	files, err := inputs(*dir)
	if err == nil && len(files) == 0 {
		err = count(counts, os.Stdin)
	}
	for _, name := range files {
		if err == nil {
			err = countFile(counts, name)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
	print(os.Stdout, counts, *top)
}

// inputs are the regular files below dir, which need not be there.
func inputs(dir string) ([]string, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, nil
	}
	var files []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	return files, err
}

func countFile(counts map[string]int, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return count(counts, f)
}

func count(counts map[string]int, r io.Reader) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), 1<<20)
	s.Split(bufio.ScanWords)
	for s.Scan() {
		word := strings.ToLower(strings.TrimFunc(s.Text(), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) }))
		if word != "" {
			counts[word]++
		}
	}
	return s.Err()
}

func print(w io.Writer, counts map[string]int, top int) {
	words, total := make([]string, 0, len(counts)), 0
	for word, n := range counts {
		words, total = append(words, word), total+n
	}
	slices.SortFunc(words, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, word := range words[:min(top, len(words))] {
		fmt.Fprintf(w, "%8d  %s\n", counts[word], word)
	}
	fmt.Fprintf(w, "%8d  words, %d different\n", total, len(words))
}
