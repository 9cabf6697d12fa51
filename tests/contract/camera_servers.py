"""Cameras to test against: small real servers on free ports of the loopback address, with faults at will."""

import base64
import hashlib
import http.server
import os
import re
import secrets
import socket
import socketserver
import ssl
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

import models  # noqa: F401  before cv2

import cv2  # isort: skip
import numpy as np

TLS_FILE = Path(__file__).with_name("camera_tls.pem")
USER, PASSWORD = "shop", "p@ss/w:rd %41"


def picture(number=0, width=320, height=240):
    """A picture that differs from frame to frame: a bar that walks over a gradient."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.linspace(30, 220, width, dtype=np.uint8)[None, :, None]
    left = 8 * number % (width - 40)
    image[40:-40, left : left + 40] = (40, 40, 230)
    return image


def jpeg(number=0, width=320, height=240):
    return cv2.imencode(".jpg", picture(number, width, height))[1].tobytes()


def huge_png():
    """The header of a PNG of 20,000 x 20,000 pixels, and next to nothing behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + b"\0\0\0\0" + struct.pack(">I", 0) + b"IDAT\0\0\0\0"


@dataclass
class Behaviour:
    """What a camera does, changed while it runs."""

    fps: float = 50.0
    auth: str = ""  # "", "basic" or "digest"
    password: str = PASSWORD
    frozen: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    requests: list = field(default_factory=list)
    authorizations: list = field(default_factory=list)


def _digest_matches(header, method, password):
    given = dict(re.findall(r'(\w+)="?([^",]+)"?', header))

    def digest(text):
        return hashlib.md5(text.encode()).hexdigest()

    first = digest(f"{USER}:{given.get('realm')}:{password}")
    second = digest(f"{method}:{given.get('uri')}")
    middle = f"{given.get('nonce')}:"
    if "qop" in given:
        middle += f"{given.get('nc')}:{given.get('cnonce')}:{given['qop']}:"
    return given.get("username") == USER and given.get("response") == digest(f"{first}:{middle}{second}")


def _allowed(behaviour, header, method):
    if header:
        behaviour.authorizations.append(header)
    if not behaviour.auth:
        return True
    if behaviour.auth == "basic":
        return header == "Basic " + base64.b64encode(f"{USER}:{behaviour.password}".encode()).decode()
    return header.startswith("Digest") and _digest_matches(header, method, behaviour.password)


def _challenge(behaviour, qop):
    if behaviour.auth == "basic":
        return 'Basic realm="camera"'
    return f'Digest realm="camera", nonce="{secrets.token_hex(8)}"' + (', qop="auth"' if qop else "")


class Server(socketserver.ThreadingTCPServer):
    """One camera. A context manager; `die` cuts every connection with a reset, as a camera that reboots does."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, handler, port=0, tls=False):
        super().__init__(("127.0.0.1", port), handler)
        self.behaviour = Behaviour()
        self.port = self.server_address[1]
        self.open_sockets = set()
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS_FILE)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.behaviour.gone.set()
        self.behaviour.frozen.clear()
        self.shutdown()
        self.die()
        self.server_close()
        self._thread.join(5)

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""

    def process_request(self, request, client_address):
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def die(self):
        for connection in list(self.open_sockets):
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)  # wakes who reads it, or the kernel would keep it open
                os.close(connection.detach())
            except OSError:
                pass


class HttpHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        behaviour = self.server.behaviour
        behaviour.requests.append(self.path)
        if not _allowed(behaviour, self.headers.get("Authorization", ""), "GET"):
            self.answer(401, b"no", "text/plain", {"WWW-Authenticate": _challenge(behaviour, True)})
            return
        name = self.path.partition("?")[0].strip("/").partition(".")[0]
        getattr(self, f"give_{name}", self.give_nothing)()

    def answer(self, status, body, kind, headers=None):
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def give_nothing(self):
        self.answer(404, b"not here", "text/plain")

    def give_snapshot(self):
        self.answer(200, jpeg(len(self.server.behaviour.requests)), "image/jpeg")

    def give_chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = jpeg()
        for part in (body[:500], body[500:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def give_truncated(self):
        self.answer(200, jpeg()[:2000], "image/jpeg")

    def give_cut(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(jpeg())))
        self.end_headers()
        self.wfile.write(jpeg()[:1000])
        self.close_connection = True

    def give_huge(self):
        self.answer(200, huge_png(), "image/png")

    def give_empty(self):
        self.answer(200, b"", "image/jpeg")

    def give_page(self):
        self.answer(200, b"<html>Welcome to your camera</html>", "text/html")

    def give_noise(self):
        self.answer(200, bytes(range(256)) * 64, "video/mp4")

    def give_error(self):
        self.answer(500, b"oops", "text/plain")

    def give_busy(self):
        self.answer(503, b"too many", "text/plain")

    def give_moved(self):
        target = f"http://{USER}:{PASSWORD}@127.0.0.1:1/snapshot.jpg?token=LOCsecret"
        self.answer(302, b"", "text/plain", {"Location": target})

    def give_silent(self):
        self.server.behaviour.gone.wait(30)

    def give_slow(self):
        """A byte now and then, for ever: no single wait is long."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.server.behaviour.gone.wait(0.05):
            self.wfile.write(b"x")

    def give_endless(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        block = b"\xff\xd8" + bytes(1 << 20)
        while not self.server.behaviour.gone.is_set():
            self.wfile.write(block)

    def give_mjpeg(self):
        behaviour = self.server.behaviour
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        self.close_connection = True
        number = 0
        while not behaviour.gone.wait(1 / behaviour.fps):
            if behaviour.frozen.is_set():
                continue
            body = jpeg(number)
            number += 1
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.wfile.write(head + body + b"\r\n")


SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=shelf\r\nt=0 0\r\nm={media}\r\na=control:track1\r\n"


class RtspHandler(socketserver.StreamRequestHandler):
    """RTSP with RTP/JPEG (RFC 2435) interleaved in the TCP connection: what FFmpeg needs to play, and no more."""

    disable_nagle_algorithm = True

    def handle(self):
        self.lock = threading.Lock()
        while True:
            lines = []
            while (line := self.rfile.readline(4096).strip()) or not lines:
                if line.startswith(b"$"):
                    return
                lines.append(line.decode("latin-1"))
                if not line and len(lines) == 1:
                    return
            method, url, _ = lines[0].split(" ")
            headers = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in lines[1:])}
            self.server.behaviour.requests.append(f"{method} {url}")
            if not self.answer(method, url, headers):
                return

    def answer(self, method, url, headers):
        behaviour, path = self.server.behaviour, "/" + url.partition("://")[2].partition("/")[2]
        if path.startswith("/silent"):
            behaviour.gone.wait(30)
            return False
        if path.startswith("/garbage"):
            self.wfile.write(b"\x00\x01SSH-2.0 not a camera\r\n\r\n")
            return False
        if method == "OPTIONS":
            return self.reply(headers, 200, {"Public": "DESCRIBE, SETUP, PLAY, TEARDOWN"})
        if not _allowed(behaviour, headers.get("authorization", ""), method):
            return self.reply(headers, 401, {"WWW-Authenticate": _challenge(behaviour, False)})
        if path.startswith("/busy"):
            return self.reply(headers, 453)
        if not path.startswith(("/stream", "/sound", "/mute")):
            return self.reply(headers, 404)
        if method == "DESCRIBE":
            media = "audio 0 RTP/AVP 0" if path.startswith("/sound") else "video 0 RTP/AVP 26"
            return self.reply(headers, 200, {"Content-Type": "application/sdp"}, SDP.format(media=media))
        if method == "SETUP":
            return self.reply(headers, 200, {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "7"})
        if method == "PLAY":
            self.reply(headers, 200, {"Session": "7"})
            if not path.startswith("/mute"):
                threading.Thread(target=self.play, daemon=True).start()
            return True
        return self.reply(headers, 200, {"Session": "7"})

    def reply(self, request, status, headers=None, body=""):
        lines = [f"RTSP/1.0 {status} X", f"CSeq: {request.get('cseq', '0')}"]
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()] + [f"Content-Length: {len(body)}"]
        with self.lock:
            self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        return True

    def play(self):
        behaviour, number, sequence = self.server.behaviour, 0, 0
        try:
            while not behaviour.gone.wait(1 / behaviour.fps):
                if behaviour.frozen.is_set():
                    continue
                packets = rtp_jpeg(jpeg(number), sequence, number * 90_000 // round(behaviour.fps))
                with self.lock:
                    self.wfile.write(b"".join(b"$\0" + struct.pack(">H", len(p)) + p for p in packets))
                number, sequence = number + 1, sequence + len(packets)
        except (OSError, ValueError):
            pass


def rtp_jpeg(content, sequence, timestamp):
    """Pack one JPEG of OpenCV's making into RTP packets."""
    at, tables, kind, width, height = 2, b"", 1, 0, 0
    while True:
        marker, length = content[at + 1], struct.unpack_from(">H", content, at + 2)[0]
        body = content[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            tables += b"".join(body[i + 1 : i + 65] for i in range(0, len(body), 65))
        elif marker == 0xC0:
            height, width = struct.unpack_from(">HH", body, 1)
            kind = 1 if body[7] == 0x22 else 0
        elif marker == 0xDA:
            break
    scan, packets = content[at:-2], []
    for offset in range(0, len(scan), 1200):
        part = scan[offset : offset + 1200]
        last = offset + 1200 >= len(scan)
        marked = 26 | (0x80 if last else 0)
        packet = struct.pack(">BBHII", 0x80, marked, (sequence + len(packets)) & 0xFFFF, timestamp, 7)
        packet += struct.pack(">I", offset) + bytes([kind, 255, width // 8, height // 8])
        if offset == 0:
            packet += struct.pack(">BBH", 0, 0, len(tables)) + tables
        packets.append(packet + part)
    return packets


def http_camera(port=0, tls=False):
    return Server(HttpHandler, port, tls)


def rtsp_camera(port=0, tls=False):
    return Server(RtspHandler, port, tls)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
