// Command probe is a WASI program for tests: its first argument says what it does.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: probe WHAT [ARG...]")
		os.Exit(64)
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
	case "slowcat": // MILLISECONDS, asleep before the input is copied
		time.Sleep(time.Duration(number(args)) * time.Millisecond)
		io.Copy(os.Stdout, os.Stdin)
	case "exit":
		fmt.Fprintln(os.Stderr, "about to leave")
		os.Exit(number(args))
	case "loop":
		fmt.Fprintln(os.Stderr, "looping")
		for i := 0; ; i++ {
			sink += i
		}
	case "wait": // MILLISECONDS, asleep
		time.Sleep(time.Duration(number(args)) * time.Millisecond)
		fmt.Println("waited")
	case "hog": // MiB
		var keep [][]byte
		for range number(args) {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			keep = append(keep, b)
		}
		fmt.Println(len(keep))
	case "print": // BYTES, pseudo-random but always the same
		w := bufio.NewWriterSize(os.Stdout, 64<<10)
		x := uint32(1)
		for range number(args) {
			x = x*1664525 + 1013904223
			w.WriteByte(byte(x >> 24))
		}
		w.Flush()
	case "logs": // LINES, each after 100 ms
		for i := range number(args) {
			fmt.Fprintf(os.Stderr, "line %d\n", i+1)
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Println("done")
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "look": // what a program could see of its host
		for _, p := range []string{"/", "/etc/passwd", "/proc/self/environ", "/tmp", "..", "."} {
			if strings.Contains(p, "passwd") || strings.Contains(p, "environ") {
				b, err := os.ReadFile(p)
				fmt.Printf("read %s: %d bytes, error %t\n", p, len(b), err != nil)
				continue
			}
			entries, err := os.ReadDir(p)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			fmt.Printf("list %s: %v, error %t\n", p, names, err != nil)
		}
		_, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
		fmt.Printf("dial: error %t\n", err != nil)
		fmt.Printf("env: %v\n", os.Environ())
	case "read": // a file under /in
		b, err := os.ReadFile("/in/" + args[0])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Stdout.Write(b)
		if err := os.WriteFile("/in/"+args[0], []byte("changed"), 0o600); err == nil {
			fmt.Fprintln(os.Stderr, "the input could be written")
			os.Exit(2)
		}
	case "copytree": // all of /in to /out, in upper case; and what it must not: change /in
		err := filepath.WalkDir("/in", func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			to := "/out" + strings.TrimPrefix(p, "/in")
			if e.IsDir() {
				return os.MkdirAll(to, 0o755)
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Println(strings.TrimPrefix(p, "/in/"), len(b))
			if os.WriteFile(p, nil, 0o600) == nil || os.WriteFile(p+".new", nil, 0o600) == nil || os.Remove(p) == nil {
				return fmt.Errorf("%s could be changed", p)
			}
			return os.WriteFile(to, bytes.ToUpper(b), 0o600)
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "unknown:", os.Args[1])
		os.Exit(64)
	}
}

var sink int

func number(args []string) int {
	if len(args) == 0 {
		return 0
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
	return n
}
