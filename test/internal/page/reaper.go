package page

import (
	"os"
	"os/exec"
	"syscall"
)

// reap waits for the end of its stdin, and kills all processes that have a line in their environment until there are none: what they start meanwhile has it, too.
const reap = `cat >/dev/null
while files=$(grep -slzxF -- "$1" /proc/[0-9]*/environ) || [ -n "$files" ]; do # what ends meanwhile is an error of grep's
  for f in $files; do
    pid=${f#/proc/}
    kill -9 "${pid%/environ}" 2>/dev/null
  done
done`

// reaper starts a process that kills all those with a line in their environment when kill is called, which waits for it, or when this process is gone: a test that is
// interrupted or runs out of time has no time to clean up.
func reaper(line string) (kill func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("bash", "--noprofile", "--norc", "-c", reap, "reaper", line)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return func() {
		w.Close()
		_ = cmd.Wait()
	}, nil
}
