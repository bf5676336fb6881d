-- Reading seed documents: YAML 1.1 as libyaml knows it, hence JSON too.
local lyaml = require "lyaml"

local document = {null = lyaml.null}

-- Plain scalars stay text: 52:54:00:12:34:56 is no sexagesimal number, and 0644 no octal one.
local function plain(value)
    if value == "" or value == "~" or value:lower() == "null" then
        return document.null
    end
    return value
end

function document.read_file(path)
    local file = io.open(path, "rb")
    if not file then
        return nil
    end
    local text = file:read("a")
    file:close()
    return text
end

-- Returns the document's map, empty where there is none, and the reason if it could not be read.
function document.parse(text)
    local ok, value = pcall(lyaml.load, text, {implicit_scalar = plain})
    if not ok then
        return {}, tostring(value)
    end
    if value == nil or value == document.null then
        return {}
    end
    if type(value) ~= "table" then
        return {}, "not a mapping"
    end
    return value
end

-- An empty list cannot be told from an empty map, and need not be.
function document.is_list(value)
    return type(value) == "table" and value ~= document.null and (#value > 0 or next(value) == nil)
end

-- The items of a list, or of one text alone; of a map, its values in the order of its keys.
function document.items(value)
    if type(value) == "string" then
        return {value}
    end
    if type(value) ~= "table" or value == document.null then
        return {}
    end
    if #value > 0 then
        return value
    end
    local keys, values = {}, {}
    for key in pairs(value) do
        keys[#keys + 1] = tostring(key)
    end
    table.sort(keys)
    for _, key in ipairs(keys) do
        values[#values + 1] = value[key]
    end
    return values
end

function document.child(value, key)
    if type(value) ~= "table" or value[key] == document.null then
        return nil
    end
    return value[key]
end

local truth = {["true"] = true, ["yes"] = true, ["on"] = true, ["false"] = false, ["no"] = false, ["off"] = false}

-- true, false, or nil where the value is neither.
function document.boolean(value)
    if type(value) ~= "string" then
        return nil
    end
    return truth[value:lower()]
end

function document.quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

return document
