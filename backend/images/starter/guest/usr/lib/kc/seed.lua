-- seed.lua SEED OUT: what meta-data and user-data ask for, as files in OUT that the boot scripts use:
--   hostname           "NAME FQDN", the second may be missing
--   authorized_keys    one key a line, for root and kc
--   script             what user-data wants run: itself where it is a script, else its runcmd
-- Files of write_files are written where they belong. Each problem is one line on standard error; none stops the rest.
local document = require "kc.document"
local child, items, quote = document.child, document.items, document.quote
local seed, out = arg[1], arg[2]

local function problem(...)
    local text = string.format(...):gsub("%c", " ")
    io.stderr:write(text, "\n")
end

local function write(path, text)
    local file, reason = io.open(path, "wb")
    if not file then
        problem("%s", reason)
        return false
    end
    file:write(text)
    file:close()
    return true
end

local function read(name)
    local text = document.read_file(seed .. "/" .. name)
    if not text then
        return {}
    end
    local value, reason = document.parse(text)
    if reason then
        problem("%s: %s", name, reason)
    end
    return value
end

-- The first label of a host name, and the whole where it has several.
local function host_name(text)
    if type(text) ~= "string" then
        return nil
    end
    local label = text:match("^[%w][%w-]*")
    if not label or #label > 63 or not text:match("^[%w.-]+$") then
        problem("not a host name: %s", text)
        return nil
    end
    return label, text:find(".", 1, true) and text or nil
end

local function add_keys(keys, value)
    for _, key in ipairs(items(value)) do
        -- public-keys may be a map of names to a key, to a list, or to {openssh-key = …} as EC2 has it.
        if type(key) == "table" then
            add_keys(keys, key)
        else
            key = tostring(key):match("^%s*(.-)%s*$")
            if key:find("%c") or not key:find("^%S+ %S") then
                problem("not an SSH key: %s", key:sub(1, 40))
            elseif not keys[key] then
                keys[key] = true
                keys[#keys + 1] = key
            end
        end
    end
end

local function decode_base64(text)
    local alphabet, bits, count, bytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 0, 0, {}
    for character in text:gmatch("[%w+/]") do
        bits = (bits << 6 | alphabet:find(character, 1, true) - 1) & 0xffffff
        count = count + 6
        if count >= 8 then
            count = count - 8
            bytes[#bytes + 1] = string.char(bits >> count & 0xff)
        end
    end
    return table.concat(bytes)
end

local decoders = {
    [""] = function(text) return text end,
    ["text/plain"] = function(text) return text end,
    ["b64"] = decode_base64,
    ["base64"] = decode_base64,
}

local function write_files(list)
    for _, entry in ipairs(items(list)) do
        local path, content = child(entry, "path"), child(entry, "content") or ""
        local decode = decoders[child(entry, "encoding") or ""]
        local permissions = child(entry, "permissions") or "0644"
        if type(path) ~= "string" or path:sub(1, 1) ~= "/" or type(content) ~= "string" then
            problem("write_files: an entry needs an absolute path and its content as text")
        elseif not decode then
            problem("write_files: %s: encoding %s is not known here", path, child(entry, "encoding"))
        elseif not permissions:match("^0?o?[0-7]+$") then
            problem("write_files: %s: not permissions: %s", path, permissions)
        else
            os.execute("mkdir -p -- " .. quote(path:match("^(.*)/") .. "/"))
            local text = decode(content)
            if document.boolean(child(entry, "append")) then
                text = (document.read_file(path) or "") .. text
            end
            if write(path, text) then
                os.execute("chmod " .. permissions:match("[0-7]+$") .. " -- " .. quote(path))
            end
        end
    end
end

-- A shell script of the commands: a text is shell, a list is one command and its arguments.
local function runcmd(list)
    local lines = {"#!/bin/sh"}
    for _, command in ipairs(items(list)) do
        if type(command) == "string" then
            lines[#lines + 1] = command
        elseif not document.is_list(command) then
            -- Most often a text with a colon and a space in it, which YAML takes for a map unless it is quoted.
            problem("runcmd: command %d is neither text nor a list", #lines)
        else
            local words = {}
            for _, word in ipairs(items(command)) do
                words[#words + 1] = quote(tostring(word))
            end
            lines[#lines + 1] = table.concat(words, " ")
        end
    end
    return #lines > 1 and table.concat(lines, "\n") .. "\n" or nil
end

local function read_user_data()
    local text = document.read_file(seed .. "/user-data") or ""
    local first = text:match("^[^\r\n]*")
    if first:sub(1, 2) == "#!" then
        write(out .. "/script", text)
    elseif first:match("^#cloud%-config%s*$") then
        return read("user-data")
    elseif text:find("%S") then
        problem("user-data: neither #cloud-config nor a script that begins with #!")
    end
    return {}
end

local meta, user = read("meta-data"), read_user_data()

local name, fqdn = host_name(child(user, "hostname"))
local full, full_fqdn = host_name(child(user, "fqdn"))
local meta_name, meta_fqdn = host_name(child(meta, "local-hostname") or child(meta, "hostname"))
fqdn = full_fqdn or fqdn or (not name and meta_fqdn)
name = name or full or meta_name
if name then
    write(out .. "/hostname", name .. (fqdn and " " .. fqdn or "") .. "\n")
end

local keys = {}
add_keys(keys, child(meta, "public-keys"))
add_keys(keys, child(user, "ssh_authorized_keys"))
for _, account in ipairs(items(child(user, "users"))) do
    add_keys(keys, child(account, "ssh_authorized_keys") or child(account, "ssh-authorized-keys"))
end
if #keys > 0 then
    write(out .. "/authorized_keys", table.concat(keys, "\n") .. "\n")
end

write_files(child(user, "write_files"))
local script = runcmd(child(user, "runcmd"))
if script then
    write(out .. "/script", script)
end
