package main

import (
	"bytes"
	"fmt"
	"html"
	"strings"
	"unicode/utf8"
)

// picture draws text as a terminal shows it, in SVG.
func picture(text string) []byte {
	const (
		advance, line = 7.8, 17 // of one character and one line at 13 px, in px
		margin, bar   = 16, 30
		columns       = 112
	)
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	width, height := margin*2+columns*advance, bar+margin*2+len(lines)*line
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="#1d1b26"/>`+"\n")
	for i, colour := range []string{"#ff6e67", "#f4bf4f", "#5fcf80"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="16" r="5.5" fill="%s"/>`+"\n", margin+6+i*18, colour)
	}
	for i, l := range lines {
		if utf8.RuneCountInString(l) > columns {
			l = string([]rune(l)[:columns-1]) + "…"
		}
		colour := "#d8d4e4"
		switch {
		case strings.HasPrefix(l, "$ "):
			colour = "#f0a6ca"
		case strings.HasPrefix(l, "("), strings.HasPrefix(l, "ready"), strings.HasPrefix(l, "Stopped"):
			colour = "#8f8aa3"
		case strings.HasPrefix(l, "Who"), strings.HasPrefix(l, "TASK"):
			colour = "#9ad1f5"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" xml:space="preserve">%s</text>`+"\n", margin, bar+margin+(i+1)*line-6, colour, html.EscapeString(l))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
