"""Tables in Go sources, read as data: composite literals of strings, numbers, names and a few calls."""

import json
import re

TOKEN = re.compile(r'\s+|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|`[^`]*`|[A-Za-z_][\w.]*|-?\d\w*|\[\]|.', re.S)


class Function(list):
    """The tokens of a function's body: what it does is not read."""


class Literal:
    """Reads Go composite literals: lists, maps and structs of strings, numbers and names, and a few calls."""

    def __init__(self, text, names=None):
        self.names = names or {}
        tokens = TOKEN.findall(text)
        self.tokens = [t for t in tokens if not t.isspace() and not t.startswith(("//", "/*"))]
        self.at = 0

    def take(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def value(self):
        value = self.term()
        while isinstance(value, str) and self.tokens[self.at : self.at + 1] == ["+"]:
            start, self.at = self.at, self.at + 1
            more = self.term() or ""
            if not isinstance(more, str):
                # A sum that is no text stays as it is.
                self.at = start
                break
            value += more
        return value

    def term(self):
        token = self.take()
        if token == "{":
            return self.braces()
        if token == "func":
            return self.function()
        if token[0] == '"':
            return json.loads(re.sub(r"\\x(..)", r"\\u00\1", token))
        if token[0] == "`":
            return token[1:-1]
        if token in ("true", "false"):
            return token == "true"
        if token == "nil":
            return None
        if token.lstrip("-")[:1].isdigit():
            return int(token, 0)
        # A type before a literal: []string{, map[string]struct{}{, Heredoc{; a call; or else a name.
        start = self.at - 1
        if self.tokens[self.at] == "(" or self.tokens[start : self.at + 2] == ["[]", "byte", "("]:
            return self.call()
        while self.tokens[self.at] in ("[]", "[", "]", "{") or re.match(r"\w", self.tokens[self.at]):
            if self.tokens[self.at] == "{":
                if self.tokens[self.at + 1] == "}" and self.tokens[self.at - 1] == "struct":
                    self.at += 2
                    continue
                self.at += 1
                return self.braces()
            self.at += 1
        name = "".join(self.tokens[start : self.at])
        return self.names.get(name, name)

    def call(self):
        name = self.tokens[self.at - 1]
        self.at = self.tokens.index("(", self.at - 1) + 1
        arguments = []
        while self.tokens[self.at] != ")":
            arguments.append(self.value())
            if self.tokens[self.at] == ",":
                self.at += 1
        self.at += 1
        if name in ("fmt.Appendf", "fmt.Sprintf"):
            form, *rest = arguments[name == "fmt.Appendf" :]
            values = iter(rest)
            show = {"s": str, "q": json.dumps, "o": "{:o}".format}
            return re.sub(r"%([sqo])", lambda verb: show[verb[1]](next(values)), form)
        if name == "strings.Join":
            return arguments[1].join(arguments[0])
        return arguments[0] if arguments else None

    def function(self):
        while self.take() != "{":
            pass
        start, depth = self.at, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
        return Function(self.tokens[start : self.at - 1])

    def braces(self):
        items, keyed = [], {}
        while self.tokens[self.at] != "}":
            item = self.value()
            if self.tokens[self.at] == ":":
                self.at += 1
                keyed[item] = self.value()
            else:
                items.append(item)
            if self.tokens[self.at] == ",":
                self.at += 1
        self.at += 1
        return keyed if keyed else items


def literals(source, start, names=None):
    """All literals that follow this text."""
    found = []
    for match in re.finditer(re.escape(start), source):
        literal = Literal(source[match.end() :], names)
        found.append(literal.braces())
    return found
